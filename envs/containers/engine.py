"""The Docker Engine behind one door: connecting, typed errors, images."""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests.exceptions

from envs.containers.address import engine_address
from envs.errors import InfrastructureError, SetupError

CALL_SECONDS = 60
"""Limit of one call to the engine.  Builds stream and are limited per chunk."""
CONNECTIONS = 32
RETURN_SECONDS = 180.0
"""How long an engine that answered before is waited for: a restart takes seconds, on a busy machine many."""
POLL_SECONDS = 0.5
_INSTALLED = Path(__file__).resolve().parent / "dockerfiles"
DOCKERFILES = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).resolve().parents[2] / "dockerfiles"
"""Of a wheel, beside this file (setup.py); of a clone, its own."""
ENGINE_FAULTS = (docker.errors.DockerException, requests.exceptions.RequestException)
"""Both families: a lost daemon shows as an error of requests and not of the SDK."""


def connect() -> docker.DockerClient:
    """A client for this machine's engine, found as :mod:`envs.containers.address` says; one is shared by all threads.

    Raises:
        SetupError: no engine answers, or it is another machine's.
    """
    url = engine_address().url
    try:
        client = _client(url)
        client.ping()
    except ENGINE_FAULTS as error:
        _client.cache_clear()
        raise SetupError(f"No Docker Engine answers ({_reason(error)}).", _how_to_start()) from error
    return client


@functools.cache
def _client(url: str) -> docker.DockerClient:
    return docker.from_env(timeout=CALL_SECONDS, max_pool_size=CONNECTIONS, environment={**os.environ, "DOCKER_HOST": url})


def _how_to_start() -> str:
    if shutil.which("dockerd"):
        return "Start it: `systemctl start docker`; without systemd: `setsid dockerd --live-restore </dev/null &>dockerd.log &`."
    return "Install it (Debian: `apt-get install docker.io`), start it, and put yourself into the group `docker`."


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn what the engine and its connection raise into InfrastructureError(component="docker")."""
    try:
        yield
    except ENGINE_FAULTS as error:
        raise InfrastructureError(f"Docker could not {doing}: {_reason(error)}.", component="docker") from error


def _reason(error: BaseException) -> str:
    text = error.explanation if isinstance(error, docker.errors.APIError) and error.explanation else str(error)
    return str(text).strip().rstrip(".")


def await_engine(
    client: docker.DockerClient, seconds: float = RETURN_SECONDS, given_up: Callable[[], bool] = lambda: False
) -> None:
    """Return when the engine answers, which is at once unless it is being restarted.

    Raises:
        InfrastructureError: it did not within ``seconds``, or nobody wants it any more.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            client.ping()
            return
        except ENGINE_FAULTS as error:
            if given_up():
                raise InfrastructureError("The Docker Engine was not waited for any longer.", component="docker") from error
            if time.monotonic() > until:
                raise InfrastructureError(
                    f"The Docker Engine has not answered for {seconds:g} s ({_reason(error)}).", _how_to_start(), component="docker"
                ) from error
        time.sleep(POLL_SECONDS)


def require_image(client: docker.DockerClient, image: str, mend: str) -> None:
    """Make sure that ``image`` is on this machine: creating a container would otherwise try to pull it, for minutes.

    Raises:
        SetupError: it is not; the hint is ``mend``, the command that brings it.
    """
    with engine_errors(f"look for the image {image}"):
        try:
            client.images.get(image)
        except docker.errors.ImageNotFound as error:
            raise SetupError(f"The image {image} is not on this machine.", mend) from error


def build_image(name: str, tag: str, on_line: Callable[[str], None], *, arguments: Mapping[str, str] | None = None) -> str:
    """Build ``dockerfiles/<name>`` as ``tag`` and return the image's id.

    Args:
        name: Folder of the Dockerfile.
        tag: Of the image.
        on_line: Gets the build's output.
        arguments: Build arguments.

    Raises:
        SetupError: the Dockerfiles are not part of this installation, or no engine.
        InfrastructureError: the build failed.
    """
    folder = DOCKERFILES / name
    if not (folder / "Dockerfile").is_file():
        raise SetupError(f"There is no {folder}/Dockerfile.", "This installation is damaged: install agentlab again.")
    return build_folder(folder, tag, on_line, arguments=arguments)


def build_folder(
    folder: Path, tag: str, on_line: Callable[[str], None], *, arguments: Mapping[str, str] | None = None, target: str = ""
) -> str:
    """Build the Dockerfile of any folder, up to the stage ``target`` if one is named, as ``tag`` and return the image's id.

    Raises:
        SetupError: no engine.
        InfrastructureError: the build failed.
    """
    client = connect()
    with engine_errors(f"build {tag}"):
        limits: dict[str, Any] = {"rm": True, "forcerm": True, "decode": True, "timeout": CALL_SECONDS * 30}
        for chunk in client.api.build(path=str(folder), tag=tag, buildargs=dict(arguments or {}), target=target, **limits):
            _report(chunk, tag, on_line)
        return str(client.images.get(tag).id)


def _report(chunk: dict[str, Any], tag: str, on_line: Callable[[str], None]) -> None:
    if "error" in chunk:
        raise InfrastructureError(
            f"Building {tag} failed: {chunk['error'].strip()}",
            "Where the base image cannot be pulled, make it first: `dockerfiles/debian-base.sh`.",
            component="docker",
        )
    for line in chunk.get("stream", "").splitlines():
        if line.strip():
            on_line(line)
