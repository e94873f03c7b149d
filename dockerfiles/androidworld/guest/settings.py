"""Settings of the guest, all from the environment, all with a default that is safe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

CHOICES = {
    "ui_tree": ("forwarder", "uiautomator", "none"),
    "accel": ("auto", "on", "off"),
    "gpu": ("off", "auto", "host", "swiftshader", "swiftshader_indirect", "angle_indirect", "guest"),
}
LIMITS = {
    "port": (1, 65535),
    "console_port": (5554, 5680),
    "grpc_port": (1024, 65535),
    "memory_mb": (1536, 65536),
    "cores": (1, 64),
}


class SettingsError(ValueError):
    """A variable of the environment has a value that cannot be."""


@dataclass(frozen=True)
class Settings:
    """One variable each, ``GUEST_`` and the name in capitals."""

    host: str = "127.0.0.1"  # the image sets 0.0.0.0; publish the port on the host's loopback interface only
    port: int = 5000
    console_port: int = 5554  # adb listens on the next one
    grpc_port: int = 8554
    adb_server_port: int = 5037
    seed: int = 30  # default of `seed` in the routes; upstream's own runner uses 30
    ui_tree: str = "forwarder"  # where UI elements come from; "forwarder" is upstream's way
    accel: str = "auto"  # "auto" wants KVM; "off" is software emulation, tens of minutes per boot
    gpu: str = "off"
    memory_mb: int = 4096
    cores: int = 4
    patience: float = 1.0  # factor of every operation's bound, for machines that are slow
    grace_s: float = 10.0  # how long a guest whose phone is gone still says so over HTTP
    boot_timeout_s: float = 900.0
    install_timeout_s: float = 1800.0
    prepared: Path = Path("/prepared")  # volume in which a prepared phone outlives its container
    avd: str = "Pixel_6_API_33"
    avd_home: Path = Path.home() / ".android" / "avd"
    emulator: Path = Path("/opt/android/emulator/emulator")
    kvm: Path = Path("/dev/kvm")
    adb: Path = Path("/opt/android/platform-tools/adb")

    @property
    def serial(self) -> str:
        """The phone's name for adb."""
        return f"emulator-{self.console_port}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read ``GUEST_*``.

        Raises:
            SettingsError: a value of the wrong type or out of range.
        """
        given: dict[str, object] = {}
        for field in fields(cls):
            text = environment.get(f"GUEST_{field.name.upper()}", "")
            if text:
                given[field.name] = _parse(field.name, text, type(getattr(cls, field.name)))
        if "avd_home" not in given and environment.get("ANDROID_AVD_HOME"):
            given["avd_home"] = Path(environment["ANDROID_AVD_HOME"])
        return cls(**given)  # type: ignore[arg-type]


def _parse(name: str, text: str, kind: type[Any]) -> Any:
    variable = f"GUEST_{name.upper()}"
    if issubclass(kind, Path):
        return Path(text)
    try:
        value = kind(text)
    except ValueError:
        raise SettingsError(f"{variable}={text!r} is not a number.") from None
    if name in CHOICES and value not in CHOICES[name]:
        raise SettingsError(f"{variable}={text!r}: one of {', '.join(CHOICES[name])}.")
    low, high = LIMITS.get(name, (0, float("inf")))
    if not isinstance(value, str) and not low <= value <= high:
        raise SettingsError(f"{variable}={text!r}: from {low} to {high}.")
    return value
