"""A container that does one thing and ends."""

from __future__ import annotations

import contextlib
import uuid

import docker.errors
import requests.exceptions

from envs.containers.container import Container
from envs.containers.engine import connect, engine_errors, require_image
from envs.containers.fleet import ContainerSpec, creation
from envs.containers.ownership import Ledger, Owner

NO_STATUS = (requests.exceptions.Timeout, requests.exceptions.ConnectionError, docker.errors.NotFound)
"""Ways in which a wait for a container ends without its status."""


def run_once(spec: ContainerSpec, seconds: float, *, run: str, ledger: Ledger | None = None) -> tuple[int | None, str]:
    """Run ``spec.command`` in a new container and remove it: (exit status, what it wrote); no status after ``seconds``.

    Raises:
        SetupError: no engine, or no such image.
        InfrastructureError: the engine failed, also when it could not start the container at all.
    """
    client, ledger = connect(), ledger or Ledger()
    require_image(client, spec.image, spec.mend)
    name, owner = f"agentlab-{run}-{uuid.uuid4().hex[:8]}", Owner.this_process(run)
    with engine_errors(f"run a container of {spec.image}"):
        ledger.add(name, str(client.info()["ID"]), owner)
        try:
            made = client.containers.create(**creation(spec, name, owner))
            try:
                made.start()
                status = None
                with contextlib.suppress(*NO_STATUS):
                    status = int(made.wait(timeout=seconds)["StatusCode"])
                return status, made.logs().decode(errors="replace")
            finally:
                Container(made).remove()
        finally:
            ledger.discard(name)
