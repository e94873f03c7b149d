"""Modules of upstream's names, so that the guest's imports find something."""

from __future__ import annotations

import datetime
import importlib.metadata
import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from standin import picture
from standin.world import CommandError, World

from lite import environment, tasks


def module(name: str, **attributes: Any) -> ModuleType:
    """A module in ``sys.modules``, with the packages above it."""
    parent, _, last = name.rpartition(".")
    if name not in sys.modules:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = []  # type: ignore[attr-defined]
        if parent:
            setattr(module(parent), last, sys.modules[name])
    vars(sys.modules[name]).update(attributes)
    return sys.modules[name]


def install(world: World) -> None:
    """Put upstream's package, android_env, absl and OpenCV where they are missing."""
    _android_env()
    _adb()
    _tasks()
    _phone(world)
    module("absl.logging", get_absl_logger=lambda: logging.getLogger("absl"))
    sys.modules.setdefault("cv2", picture.cv2)
    real_version = importlib.metadata.version
    importlib.metadata.version = lambda name: "1.2.3" if name == "android_env" else real_version(name)


def _android_env() -> None:
    module("android_env.components.action_type", ActionType=SimpleNamespace(LIFT=np.int32(1)))
    configs = ("EmulatorLauncherConfig", "AdbControllerConfig", "AndroidEnvConfig", "FilesystemTaskConfig", "EmulatorConfig")
    module("android_env.components.config_classes", **dict.fromkeys(configs, SimpleNamespace))
    status = SimpleNamespace(OK="OK", FAILED="FAILED")
    module("android_env.proto.adb_pb2", AdbResponse=SimpleNamespace(Status=status))


def _adb() -> None:
    def request(arguments: list[str], controller: environment.Controller, timeout_sec: float | None = None) -> Any:
        try:
            output = controller.world.execute(list(arguments))
        except CommandError as error:
            return SimpleNamespace(status="FAILED", error_message=str(error))
        return SimpleNamespace(status="OK", error_message="", generic=SimpleNamespace(output=output.encode()))

    def start(activity: str, extra_args: Any, env: environment.Controller, timeout_sec: float | None = None) -> Any:
        reply = request(["shell", f"am start -n {activity}"], env)
        if reply.status == "OK" and b"Error" in reply.generic.output:
            return SimpleNamespace(status="FAILED", error_message=reply.generic.output.decode())
        return reply

    def packages(controller: environment.Controller) -> list[str]:
        return [line.removeprefix("package:") for line in controller.adb("shell", "pm list packages").splitlines()]

    module(
        "android_world.env.adb_utils", _PATTERN_TO_ACTIVITY=environment.ACTIVITIES, issue_generic_request=request,
        start_activity=start, get_all_package_names=packages,
    )  # fmt: skip


def _tasks() -> None:
    evals = "android_world.task_evals"
    module("android_world.registry", TaskRegistry=tasks.Registry, get_families=lambda: tasks.FAMILIES)
    module("android_world.suite_utils", create_suite=tasks.create_suite)
    module("android_world.env.device_constants", DT=datetime.datetime(2023, 10, 15, 15, 34, tzinfo=datetime.UTC))
    module("android_world.env.representation_utils", forest_to_ui_elements=environment.elements_of)
    module("android_world.env.json_action", JSONAction=environment.JSONAction, ANSWER="answer")
    module(f"{evals}.information_retrieval.information_retrieval", InformationRetrieval=tasks.InformationRetrieval)
    module(f"{evals}.miniwob.miniwob_base", MiniWoBTask=tasks.MiniWoBTask, is_episode_terminated=tasks.is_episode_terminated)
    tasks.MarkorCreateFolder.clock = module(f"{evals}.single.markor", datetime=datetime)


def _phone(world: World) -> None:
    def controller(env: Any, a11y_method: str, install_a11y_forwarding_app: bool) -> environment.Controller:
        if install_a11y_forwarding_app:
            world.event("install forwarder")
        return environment.Controller(world)

    def setup(env: environment.AsyncAndroidEnv, emulator_setup: bool, freeze_datetime: bool) -> None:
        if emulator_setup:
            world.event("install apps")
            env.controller.adb("shell", "pm list packages")

    methods = SimpleNamespace(A11Y_FORWARDER_APP="forwarder", UIAUTOMATOR="uiautomator", NONE="none")
    module("android_env.loader", load=lambda config: None)
    module(
        "android_world.env.android_world_controller", A11yMethod=methods, AndroidWorldController=controller,
        _write_default_task_proto=lambda: "",
    )  # fmt: skip
    module("android_world.env.env_launcher", setup_env=setup)
    module("android_world.env.interface", AsyncEnv=environment.AsyncEnv, AsyncAndroidEnv=environment.AsyncAndroidEnv)
