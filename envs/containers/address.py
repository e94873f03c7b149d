"""Where the Docker Engine is, found as the command ``docker`` finds it; that of another machine is refused.

The ports of its containers would be published there and its files be there, while guests are asked and given files from here.  A node of
a cluster on that machine does what is wanted.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from envs.errors import SetupError

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
DEFAULT = "default"


@dataclass(frozen=True)
class EngineAddress:
    """An engine's address.

    Attributes:
        url: As ``DOCKER_HOST`` has it; "" for the machine's own socket.
        named_by: What names it, for messages.
        undo: The command that leads back to this machine's own engine.
    """

    url: str = ""
    named_by: str = ""
    undo: str = ""


def engine_address() -> EngineAddress:
    """The engine that ``DOCKER_CONTEXT``, ``DOCKER_HOST`` or the chosen ``docker context`` names, in this order, if it is this machine's.

    Raises:
        SetupError: it is another machine's, or what names it cannot be read.
    """
    address = _named()
    refuse_remote(address)
    return address


def _named() -> EngineAddress:
    context, host = os.environ.get("DOCKER_CONTEXT", ""), os.environ.get("DOCKER_HOST", "")
    undo = "unset DOCKER_CONTEXT"
    if not context and host:
        return EngineAddress(host, "DOCKER_HOST", "unset DOCKER_HOST")
    if not context:
        context, undo = _chosen(), "docker context use default"
    if context in ("", DEFAULT):
        return EngineAddress(host, "DOCKER_HOST" if host else "", "unset DOCKER_HOST")
    named_by = f"The docker context {context!r}"
    return EngineAddress(_url_of(context, named_by, undo), named_by, undo)


def _folder() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def _chosen() -> str:
    """The context that ``docker context use`` chose; "" for none."""
    try:
        chosen = json.loads((_folder() / "config.json").read_text(encoding="utf-8")).get("currentContext")
    except (OSError, ValueError, AttributeError):  # the file is the docker command's, which says what is wrong with it
        return ""
    return chosen if isinstance(chosen, str) else ""


def _url_of(context: str, named_by: str, undo: str) -> str:
    """The address that a context holds.

    Raises:
        SetupError: there is no such context, or it holds none.
    """
    name = hashlib.sha256(context.encode()).hexdigest()
    try:
        url = json.loads((_folder() / "contexts" / "meta" / name / "meta.json").read_text(encoding="utf-8"))["Endpoints"]["docker"][
            "Host"
        ]
    except OSError as error:
        raise SetupError(
            f"{named_by} does not exist.", f"`docker context ls` lists them; `{undo}` uses this machine's own."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{named_by} holds no address of an engine.", f"`{undo}` uses this machine's own.") from error
    return str(url)


def refuse_remote(address: EngineAddress) -> None:
    """Refuse the engine of another machine.

    Raises:
        SetupError: it is another machine's, or no address.
    """
    url = address.url if "://" in address.url or not address.url else f"tcp://{address.url}"
    try:
        there = urlsplit(url)
        host = there.hostname or ""
    except ValueError as error:
        raise SetupError(f"{address.named_by} is {address.url!r}, which is no address.", f"`{address.undo}`.") from error
    if there.scheme in ("", "unix", "npipe") or (there.scheme != "ssh" and host in LOCAL_HOSTS):
        return
    if there.scheme == "ssh" and host in LOCAL_HOSTS:
        raise SetupError(f"{address.named_by} reaches this machine's own engine by SSH.", f"`{address.undo}` reaches it without.")
    where = host or address.url
    raise SetupError(
        f"{address.named_by} names the engine of another machine ({where}), whose ports and files are there and not here: "
        f"make {where} a node of a Ray cluster and use --cluster (docs/cluster.md).",
        f"Or run agentlab on {where} itself, or `{address.undo}` to use the engine of this machine.",
    )
