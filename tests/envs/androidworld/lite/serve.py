"""Starts a server over the stand-in without upstream's package: the same command line as ``standin.serve``."""

from __future__ import annotations

import sys

from standin.serve import arguments_of, run_guest
from standin.world import World

from lite import modules


class Clipboard:
    """The phone's clipboard, without the emulator's gRPC interface."""

    def __init__(self, world: World) -> None:
        self._state = world.phone

    def get(self) -> str:
        return self._state.state.clipboard

    def set(self, text: str) -> None:
        self._state.state.clipboard = text


def main(given: list[str]) -> int:
    """Serve until told to stop; returns the exit code."""
    arguments = arguments_of(given)
    world = World(arguments.directory, arguments.width, arguments.height)
    modules.install(world)
    if arguments.server == "upstream":
        return _serve_upstream(world, arguments.port)
    import guest.real

    guest.real.EmulatorClipboard = lambda grpc_port: Clipboard(world)
    return run_guest(world, arguments, grpc_port=1)


def _serve_upstream(world: World, port: int) -> int:
    import uvicorn

    from lite.upstream import create_app

    uvicorn.run(create_app(world), host="127.0.0.1", port=port, log_level="warning")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
