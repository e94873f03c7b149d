"""The parts of a real phone: emulator, upstream's environment over it, installation, warm start."""

from __future__ import annotations

from collections.abc import Callable

from android_env import loader
from android_env.components import config_classes
from android_world.env import android_world_controller as controllers
from android_world.env import env_launcher, interface

from guest.device import Device
from guest.emulator import CLEAN, Emulator
from guest.machine import Parts
from guest.prepared import Prepared
from guest.settings import Settings
from guest.typing_text import EmulatorClipboard

METHODS = {
    "forwarder": controllers.A11yMethod.A11Y_FORWARDER_APP,
    "uiautomator": controllers.A11yMethod.UIAUTOMATOR,
    "none": controllers.A11yMethod.NONE,
}
"""Where UI elements come from, by GUEST_UI_TREE."""


class RealPhone:
    """Boots the emulator of this container and prepares it for the benchmark."""

    def __init__(self, settings: Settings, emulator: Emulator | None = None) -> None:
        self._settings = settings
        self._emulator = emulator or Emulator(settings)
        self._prepared = Prepared(settings)
        self._env: interface.AsyncEnv | None = None

    def parts(self) -> Parts:
        """What the machine is made of."""
        return Parts(self._emulator, self.boot, lambda: self.connect(install_forwarder=False))

    def connect(self, install_forwarder: bool) -> Device:
        """Upstream's environment over the running emulator; the one before it is closed.

        As upstream's ``get_controller`` builds it, which has no choice of where UI elements come from and downloads the
        accessibility forwarder each time.
        """
        if self._env is not None:
            self._env.close()
        s = self._settings
        launcher = config_classes.EmulatorLauncherConfig(
            emulator_console_port=s.console_port, adb_port=s.console_port + 1, grpc_port=s.grpc_port
        )
        adb = config_classes.AdbControllerConfig(adb_path=str(s.adb), adb_server_port=s.adb_server_port)
        config = config_classes.AndroidEnvConfig(
            task=config_classes.FilesystemTaskConfig(path=controllers._write_default_task_proto()),
            simulator=config_classes.EmulatorConfig(emulator_launcher=launcher, adb_controller=adb),
        )
        controller = controllers.AndroidWorldController(
            loader.load(config), a11y_method=METHODS[s.ui_tree], install_a11y_forwarding_app=install_forwarder
        )
        self._env = interface.AsyncAndroidEnv(controller)
        return Device(self._env, EmulatorClipboard(s.grpc_port), s.ui_tree, s.patience)

    def boot(self, tell: Callable[[str], None]) -> tuple[Device, bool]:
        """Boot, warm where there is a prepared phone; otherwise install, save and keep.

        Raises:
            GuestError: boot_failed.
        """
        tell("booting")
        self._emulator.acceleration()  # refuse before gigabytes are copied
        device, warm = self._boot(tell)
        device.pixels()
        return device, warm

    def _boot(self, tell: Callable[[str], None]) -> tuple[Device, bool]:
        if self._prepared.is_here():
            return self._boot_warm(tell), True
        if not self._prepared.has_volume:
            return self._install(tell), False
        patience = self._settings.install_timeout_s, lambda: tell("waiting")
        warm = self._prepared.fetch(*patience)
        if not warm:
            with self._prepared.alone(*patience):
                installs = not self._prepared.kept()  # or somebody else was quicker
                if installs:
                    self._install_and_keep(tell)
            warm = not installs and self._prepared.fetch(*patience)
        return self._boot_warm(tell), warm

    def _boot_warm(self, tell: Callable[[str], None]) -> Device:
        tell("booting")
        self._emulator.start(snapshot=CLEAN)
        self._emulator.wait_until_booted(self._settings.boot_timeout_s)
        tell("connecting")
        device = self.connect(install_forwarder=False)
        env_launcher.setup_env(device.env, emulator_setup=False, freeze_datetime=True)
        return device

    def _install(self, tell: Callable[[str], None]) -> Device:
        self._install_and_keep(tell)
        return self._boot_warm(tell)

    def _install_and_keep(self, tell: Callable[[str], None]) -> None:
        tell("booting")
        self._emulator.start()
        self._emulator.wait_until_booted(self._settings.boot_timeout_s)
        tell("connecting")
        device = self.connect(install_forwarder=True)
        tell("installing")
        env_launcher.setup_env(device.env, emulator_setup=True, freeze_datetime=True)
        tell("saving")
        device.reset(home=True)
        self._emulator.save(CLEAN)
        # The disk is whole only after the emulator has ended.
        device.env.close()
        self._env = None
        self._emulator.stop()
        self._prepared.mark()
        if self._prepared.has_volume:
            self._prepared.keep()
