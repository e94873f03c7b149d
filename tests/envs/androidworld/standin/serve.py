"""Starts a real server over the stand-in: ``python -m standin.serve upstream|ours|prepare --port P --directory D [--width W --height H]``.

Only three places of upstream are replaced, all below its own interface: the emulator, the accessibility application, and the
installation of 24 applications from the network.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from standin import databases
from standin.world import StandinEmulator, World


def replace_the_phone(world: World) -> None:
    """Put the stand-in where upstream starts to talk to an emulator."""
    from android_env import loader
    from android_world.env import adb_utils, android_world_controller
    from android_world.env.setup_device import setup
    from android_world.utils import app_snapshot

    from standin.simulator import StandinForwarder, StandinSimulator

    def simulator(config: Any) -> StandinSimulator:
        return StandinSimulator(config, world)

    def forwarder(env: Any, install_a11y_forwarding_app: bool) -> StandinForwarder:
        if install_a11y_forwarding_app:
            world.event("install forwarder")
        return StandinForwarder(env, world)

    def install(env: Any, app_list: Any = None) -> None:
        world.event("install apps")
        installed = set(adb_utils.get_all_package_names(env.controller))
        for app in setup._APPS:
            activity = adb_utils.get_adb_activity(app.app_name)
            if activity is not None and adb_utils.extract_package_name(activity) in installed:
                app_snapshot.save_snapshot(app.app_name, env.controller)

    loader.emulator_simulator.EmulatorSimulator = simulator
    android_world_controller.apply_a11y_forwarder_app_wrapper = forwarder
    setup.setup_apps = install


def serve_upstream(world: World, port: int) -> int:
    """Upstream's own server script, as it is, on another port of the loopback interface."""
    import uvicorn

    server = importlib.import_module("server.android_server")
    uvicorn.run(server.app, host="127.0.0.1", port=port, log_level="warning")
    return 0


def run_guest(world: World, arguments: argparse.Namespace, grpc_port: int) -> int:
    """Our guest server with its real boot, over the stand-in's emulator."""
    from guest.__main__ import serve
    from guest.machine import Machine
    from guest.real import RealPhone
    from guest.settings import Settings

    settings = dataclasses.replace(
        Settings.from_environment(), port=arguments.port, grpc_port=grpc_port,
        avd_home=world.directory / "avd", prepared=world.directory / "prepared",
    )  # fmt: skip
    avd = settings.avd_home / f"{settings.avd}.avd"
    avd.mkdir(parents=True, exist_ok=True)
    world.phone.kept_in = avd / "snapshots"  # they go where the phone's disk goes
    if os.environ.get("STANDIN_VOLUME"):
        settings = dataclasses.replace(settings, prepared=Path(os.environ["STANDIN_VOLUME"]))
        os.path.ismount = lambda path: str(path) == os.environ["STANDIN_VOLUME"]
    machine = Machine(RealPhone(settings, StandinEmulator(world)).parts(), settings.patience)
    return serve(machine, settings, only_prepare=arguments.server == "prepare")


def arguments_of(given: list[str]) -> argparse.Namespace:
    """The command line, with the directory made."""
    parser = argparse.ArgumentParser()
    parser.add_argument("server", choices=("upstream", "ours", "prepare"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--width", type=int, default=1080)
    parser.add_argument("--height", type=int, default=2400)
    arguments = parser.parse_args(given)
    arguments.directory.mkdir(parents=True, exist_ok=True)
    return arguments


def main(given: list[str]) -> int:
    from standin.simulator import serve_clipboard

    arguments = arguments_of(given)
    world = World(arguments.directory, arguments.width, arguments.height)
    databases.make(arguments.directory / "files")
    replace_the_phone(world)
    if arguments.server == "upstream":
        return serve_upstream(world, arguments.port)
    _, grpc_port = serve_clipboard(world.phone)
    return run_guest(world, arguments, grpc_port)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
