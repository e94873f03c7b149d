"""The emulator process and the phone's adb: start, wait, snapshots, end.  Every command has a bound."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

from guest.errors import GuestError
from guest.settings import Settings

CLEAN = "clean"
"""The snapshot of a phone on which the benchmark's applications are installed and nothing has been done."""

AFTER_BOOT = (
    "settings put global window_animation_scale 0.0",
    "settings put global transition_animation_scale 0.0",
    "settings put global animator_duration_scale 0.0",
    "settings put global hidden_api_policy_pre_p_apps 1",
    "settings put global hidden_api_policy_p_apps 1",
    "settings put global hidden_api_policy 1",
    "input keyevent 82",
)
"""What upstream's start script sets: no animations, hidden interfaces open, keyguard away."""


class Emulator:
    """One emulator of this container; ``settings`` has its ports."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    # -- the process -----------------------------------------------------------------------------------------------------------
    def acceleration(self) -> str:
        """The emulator's ``-accel``: on or off.

        Raises:
            GuestError: boot_failed, where KVM is wanted and cannot be used.
        """
        if self._settings.accel == "off":
            return "off"
        try:
            # Opened and not only looked at: the file may be there without the hardware behind it.
            os.close(os.open(self._settings.kvm, os.O_RDWR))
        except OSError as error:
            raise GuestError(
                "boot_failed",
                f"KVM cannot be used here ({error}): start the container with --device /dev/kvm --group-add $(stat -c %g /dev/kvm), "
                "or set GUEST_ACCEL=off (a run: --set androidworld.accel=off) for an emulator that takes tens of minutes to boot.",
                reason="no_kvm",
            ) from error
        return "on"

    def command(self, snapshot: str | None) -> list[str]:
        """How the emulator is started, from ``snapshot`` or from a cold boot."""
        s = self._settings
        state = ["-snapshot", snapshot, "-no-snapshot-save"] if snapshot else ["-no-snapshot"]
        return [
            str(s.emulator),
            f"@{s.avd}",
            "-no-window",
            "-no-boot-anim",
            *state,
            *("-ports", f"{s.console_port},{s.console_port + 1}"),
            *("-grpc", str(s.grpc_port)),
            *("-memory", str(s.memory_mb)),
            *("-cores", str(s.cores)),
            *("-gpu", s.gpu),
            *("-accel", self.acceleration()),
        ]

    def start(self, snapshot: str | None = None) -> None:
        """Start the process.

        Raises:
            GuestError: boot_failed.
        """
        command = self.command(snapshot)
        environment = {**os.environ, "ANDROID_AVD_HOME": str(self._settings.avd_home)}
        try:
            self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:
            raise GuestError("boot_failed", f"The emulator cannot be started: {error}") from error

    def exit_code(self) -> int | None:
        """The process's exit code; None while it runs or was not started."""
        return None if self._process is None else self._process.poll()

    def wait_until_booted(self, timeout_s: float) -> None:
        """Wait until Android says that it has booted, then set it up as upstream does.

        Raises:
            GuestError: boot_failed.
        """
        deadline = time.monotonic() + timeout_s
        while not self.answers(5.0):
            if self.exit_code() is not None:
                raise GuestError("boot_failed", f"The emulator ended while it booted (exit code {self.exit_code()}).")
            if time.monotonic() > deadline:
                raise GuestError(
                    "boot_failed",
                    f"Android did not boot within {timeout_s:g} s. Give it more: `--set androidworld.boot_timeout_s=SECONDS` of a run or "
                    "of `agentlab fetch androidworld`, or GUEST_BOOT_TIMEOUT_S.",
                )
            time.sleep(1.0)
        self.adb("root", timeout_s=30)
        self.adb("wait-for-device", timeout_s=60)
        for command in AFTER_BOOT:
            self.adb("shell", command, timeout_s=30)

    def stop(self, timeout_s: float = 60.0) -> None:
        """End the process, first by asking; may be called twice."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        try:
            self.adb("emu", "kill", timeout_s=min(10.0, timeout_s))
        except GuestError:
            process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    # -- adb -------------------------------------------------------------------------------------------------------------------
    def adb(self, *arguments: str, timeout_s: float) -> str:
        """Run one adb command for this phone.

        Raises:
            GuestError: device_dead, if it fails or does not end in time.
        """
        s = self._settings
        command = [str(s.adb), "-P", str(s.adb_server_port), "-s", s.serial, *arguments]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s, check=False
            )
        except (subprocess.TimeoutExpired, OSError) as error:
            raise GuestError("device_dead", f"adb {arguments[0]}: {error}") from error
        output = done.stdout.decode("utf-8", "replace").strip()
        if done.returncode != 0:
            raise GuestError("device_dead", f"adb {arguments[0]} failed ({done.returncode}): {output[-300:]}")
        return output

    def answers(self, timeout_s: float) -> bool:
        """Whether the phone answers and has booted."""
        try:
            return self.adb("shell", "getprop", "sys.boot_completed", timeout_s=timeout_s) == "1"
        except GuestError:
            return False

    # -- snapshots -------------------------------------------------------------------------------------------------------------
    def _snapshot(self, *arguments: str) -> str:
        output = self.adb("emu", "avd", "snapshot", *arguments, timeout_s=170)
        if "KO" in output.split("\n")[-1] or output.startswith("KO"):
            raise GuestError("action_failed", f"The emulator refuses 'snapshot {' '.join(arguments)}': {output[-300:]}")
        return output

    def snapshots(self) -> list[str]:
        """Names of the emulator's snapshots."""
        # One line each: id, TAG, size, date, clock; ids are numbers or dashes.
        rows = re.findall(r"^\s*(?:\d+|--)\s+([a-z0-9][a-z0-9-]*)\s", self._snapshot("list"), flags=re.MULTILINE)
        return sorted(set(rows))

    def save(self, name: str) -> None:
        """Save everything, memory included, under ``name``."""
        self._snapshot("save", name)

    def load(self, name: str) -> None:
        """Put everything, memory included, back to ``name``.

        Raises:
            GuestError: unknown_snapshot, action_failed.
        """
        known = self.snapshots()
        if name not in known:
            raise GuestError("unknown_snapshot", f"There is no snapshot {name!r}.", known=known)
        self._snapshot("load", name)


def copy_tree(source: Path, target: Path) -> None:
    """Copy an AVD, gigabytes with holes, so that ``target`` is there whole or not at all."""
    partial = target.with_name(target.name + ".partial")
    subprocess.run(["rm", "-rf", str(partial)], check=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", str(source), str(partial)], check=True)
    subprocess.run(["rm", "-rf", str(target)], check=True)
    partial.rename(target)
