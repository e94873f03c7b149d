"""The stand-in where upstream expects an emulator: a simulator of android_env, its adb, its accessibility service and its clipboard."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
from android_env.components import adb_controller, config_classes, errors, log_stream
from android_env.components.simulators import base_simulator
from android_env.proto import emulator_controller_pb2, emulator_controller_pb2_grpc
from android_env.proto.a11y import android_accessibility_forest_pb2
from android_env.wrappers import a11y_grpc_wrapper
from google.protobuf import empty_pb2

from standin.phone import Phone
from standin.world import CommandError, World


def misbehave(world: World) -> None:
    """As :meth:`World.misbehave`, with android_env's error."""
    try:
        world.misbehave()
    except CommandError as error:
        raise errors.AdbControllerError(str(error)) from error


class StandinAdbController(adb_controller.AdbController):
    """Runs commands on the stand-in; fails as adb does."""

    def __init__(self, world: World) -> None:
        super().__init__(config_classes.AdbControllerConfig())
        self._world = world

    def execute_command(self, args: list[str], timeout: float | None = None, device_specific: bool = True) -> bytes:
        try:
            return self._world.execute(args).encode()
        except CommandError as error:
            raise errors.AdbControllerError(str(error)) from error


class SilentLog(log_stream.LogStream):
    """A phone that logs nothing."""

    def __init__(self) -> None:
        super().__init__(verbose=False)
        self._stop = threading.Event()

    def _get_stream_output(self) -> Iterator[str]:
        self._stop.wait()
        return iter(())

    def stop_stream(self) -> None:
        self._stop.set()


class StandinSimulator(base_simulator.BaseSimulator):
    """android_env's simulator interface over the stand-in."""

    def __init__(self, config: Any, world: World) -> None:
        super().__init__(config)
        self._world = world

    def adb_device_name(self) -> str:
        return "emulator-5554"

    def create_adb_controller(self) -> adb_controller.AdbController:
        return StandinAdbController(self._world)

    def create_log_stream(self) -> log_stream.LogStream:
        return SilentLog()

    def _launch_impl(self) -> None:
        misbehave(self._world)

    def send_touch(self, touches: list[tuple[int, int, bool, int]]) -> None: ...

    def send_key(self, keycode: Any, event_type: str) -> None: ...

    def _get_screenshot_impl(self) -> Any:
        try:
            return self._world.picture()
        except CommandError as error:
            raise errors.ReadObservationError("stand-in: no picture") from error


class StandinForwarder(a11y_grpc_wrapper.A11yGrpcWrapper):
    """The accessibility service: the stand-in's nodes as the forest that the real one sends."""

    def __init__(self, env: Any, world: World) -> None:
        # Not the parent's: it installs an application and serves gRPC to it.
        self._env, self._world = env, world

    def reset(self) -> Any:
        return self._env.reset()

    def step(self, action: Any) -> Any:
        return self._env.step(action)

    def attempt_enable_networking(self) -> None: ...

    def accumulate_new_extras(self) -> dict[str, Any]:
        misbehave(self._world)
        if self._world.control().get("no_tree"):
            raise KeyError("accessibility_tree")
        return {"accessibility_tree": [forest(self._world.phone)]}

    def task_extras(self, latest_only: bool = False) -> dict[str, Any]:
        return self.accumulate_new_extras()

    def close(self) -> None:
        self._env.close()


def forest(phone: Phone) -> Any:
    """The phone's nodes as an AndroidAccessibilityForest."""
    classes = {"button": "Button", "field": "EditText", "switch": "Switch", "slider": "SeekBar", "list": "ListView"}
    result = android_accessibility_forest_pb2.AndroidAccessibilityForest()
    tree = result.windows.add().tree
    for i, node in enumerate(phone.nodes()):
        one = tree.nodes.add(unique_id=i, text=node.text, content_description=node.desc, hint_text=node.hint)
        one.bounds_in_screen.left, one.bounds_in_screen.top, one.bounds_in_screen.right, one.bounds_in_screen.bottom = node.box
        one.class_name = f"android.widget.{classes.get(node.kind, 'TextView')}"
        one.package_name = phone.activity.split("/")[0]
        one.is_clickable, one.is_long_clickable = node.tap is not None, node.hold is not None
        one.is_editable, one.is_focused = node.kind == "field", node.focused
        one.is_checkable, one.is_checked = node.kind == "switch", node.checked
        one.is_scrollable = node.kind == "list"
        one.is_enabled = one.is_visible_to_user = True
    return result


class ClipboardService(emulator_controller_pb2_grpc.EmulatorControllerServicer):
    """The part of the emulator's gRPC interface that our guest uses."""

    def __init__(self, phone: Phone) -> None:
        self._phone = phone

    def getClipboard(self, request: Any, context: Any) -> Any:
        return emulator_controller_pb2.ClipData(text=self._phone.state.clipboard)

    def setClipboard(self, request: Any, context: Any) -> Any:
        self._phone.state.clipboard = request.text
        return empty_pb2.Empty()


def serve_clipboard(phone: Phone) -> tuple[Any, int]:
    """Start the emulator's gRPC interface on a free port; returns (server, port)."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    emulator_controller_pb2_grpc.add_EmulatorControllerServicer_to_server(ClipboardService(phone), server)
    port = server.add_secure_port("localhost:0", grpc.local_server_credentials())
    server.start()
    return server, port
