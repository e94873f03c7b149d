"""Settings of the emulator in a container: ``--set androidworld.boot_timeout_s=1800`` becomes ``GUEST_BOOT_TIMEOUT_S``.

The same names and limits as in ``dockerfiles/androidworld/guest/settings.py`` (a test compares them).  They change what is started, so
they need a provider that starts something.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envs.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Knob:
    """One setting of the guest.

    Attributes:
        default: The guest's own; its type is the setting's.
        text: What it is, with the unit.
        choices: The words that it can be, if it is a word.
        low, high: Limits, if it is a number.
        upstream: The variable of upstream's own image that means the same, and what stands before its value.
    """

    default: int | float | str
    text: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = float("inf")
    upstream: tuple[str, str] | None = None


KNOBS: dict[str, Knob] = {
    "boot_timeout_s": Knob(900.0, "how long Android may take to boot, seconds", upstream=("EMULATOR_TIMEOUT", "")),
    "install_timeout_s": Knob(1800.0, "how long the first installation of the applications may take, seconds"),
    "memory_mb": Knob(4096, "memory of the phone, MB; the container gets 4 GB more", low=1536, high=65536),
    "cores": Knob(4, "processor cores of the phone", low=1, high=64),
    "gpu": Knob("off", "the emulator's -gpu", ("off", "auto", "host", "swiftshader", "swiftshader_indirect", "angle_indirect", "guest")),
    "accel": Knob(
        "auto", "auto and on need KVM; off is software emulation, tens of minutes per boot", ("auto", "on", "off"),
        upstream=("HW_ACCEL_OVERRIDE", "-accel "),
    ),
    "ui_tree": Knob("forwarder", "where UI elements come from; forwarder is upstream's way", ("forwarder", "uiautomator", "none")),
    "patience": Knob(1.0, "factor of every bound of an operation, for slow machines"),
    "grace_s": Knob(10.0, "how long a server whose phone is gone still says so, seconds"),
    "avd": Knob("Pixel_6_API_33", "name of the virtual device in the image"),
    "emulator": Knob("/opt/android/emulator/emulator", "the emulator's path in the image"),
    "adb": Knob("/opt/android/platform-tools/adb", "adb's path in the image"),
    "console_port": Knob(5554, "console of the emulator inside the container; adb is on the next port", low=5554, high=5680),
    "grpc_port": Knob(8554, "gRPC port of the emulator inside the container", low=1024, high=65535),
    "adb_server_port": Knob(5037, "port of the adb server inside the container", low=1, high=65535),
}  # fmt: skip

FIXED = {
    "host": "the container listens on all its interfaces, and its port is published on the loopback interface",
    "port": "the port that is published",
    "prepared": "where the volume of the prepared phone is mounted",
    "avd_home": "where the image has the virtual device",
    "kvm": "the device that is passed to the container",
    "seed": "every request of a run names its seed",
}
"""Settings of the guest that belong to the container and not to the user, and why."""

BESIDE_PHONE_MB = 4096
"""Memory of a container beyond its phone's: the emulator itself, the server, adb."""


def check(given: Mapping[str, Any], provider: Any = "ours") -> None:
    """Refuse unknown names, values that the guest would refuse, and settings of what is not started here.

    Raises:
        UsageError: says which, and what can be given.
    """
    for name, value in given.items():
        if name not in KNOBS:
            raise UsageError(f"AndroidWorld has no option {name!r}.", did_you_mean(name, KNOBS, what="option"))
        if value is not None:
            _check_one(name, value)
    given = {name: value for name, value in given.items() if value is not None}
    if provider == "upstream":
        foreign = [name for name in given if KNOBS[name].upstream is None]
        if foreign:
            able = ", ".join(name for name, knob in KNOBS.items() if knob.upstream)
            raise UsageError(
                f"Upstream's image has no setting {', '.join(foreign)}.", f"It has {able}; --provider ours has all of them."
            )
    elif given and provider != "ours" and isinstance(provider, str):
        hint = "Give them to the command that starts that server (GUEST_*), or use --provider ours."
        raise UsageError(f"The emulator at {provider} runs already: {', '.join(given)} cannot be changed.", hint)


def _check_one(name: str, value: Any) -> None:
    knob, option, value = KNOBS[name], f"androidworld.{name}", _word(name, value)
    if isinstance(knob.default, str):
        if knob.choices and value not in knob.choices:
            raise UsageError(f"{option} is {value!r}.", f"Known: {', '.join(knob.choices)}.")
        if not isinstance(value, str) or not re.fullmatch(r"[\w./-]{1,200}", value):
            raise UsageError(f"{option} is {value!r}.", f"Give {knob.text}.")
        return
    whole = isinstance(knob.default, int)
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not fits or not knob.low <= value <= min(knob.high, 1e9) or (knob.low == 0 and value <= 0):
        limits = f"from {knob.low:g} to {knob.high:g}" if knob.low else "above 0"
        raise UsageError(f"{option} is {value!r}.", f"Give a {'whole ' if whole else ''}number {limits}: {knob.text}.")


def _word(name: str, value: Any) -> Any:
    """YAML reads ``off`` and ``on`` as truth values; where a word is meant they are words."""
    return ("off", "on")[value] if isinstance(value, bool) and isinstance(KNOBS[name].default, str) else value


def environment(given: Mapping[str, Any]) -> dict[str, str]:
    """The variables of our image."""
    return {f"GUEST_{name.upper()}": str(_word(name, value)) for name, value in given.items() if value is not None}


def upstream_environment(given: Mapping[str, Any]) -> dict[str, str]:
    """The variables of upstream's own image."""
    found = {}
    for name, value in given.items():
        variable, value = KNOBS[name].upstream, _word(name, value)
        if variable and value is not None and value != "auto":
            found[variable[0]] = variable[1] + (f"{value:.0f}" if isinstance(value, float) else str(value))
    return found


def value_of(given: Mapping[str, Any], name: str) -> Any:
    """What the user gave, or the default."""
    value = given.get(name)
    return KNOBS[name].default if value is None else _word(name, value)


def boot_seconds(given: Mapping[str, Any]) -> float:
    """How long a container may take until it is ready: the first one boots, installs, and boots again."""
    return float(value_of(given, "install_timeout_s") + 2 * value_of(given, "boot_timeout_s"))


def memory(given: Mapping[str, Any]) -> str:
    """The container's limit, as Docker writes it."""
    return f"{value_of(given, 'memory_mb') + BESIDE_PHONE_MB}m"


def parse_sets(sets: list[str]) -> dict[str, Any]:
    """``boot_timeout_s=1800`` (``androidworld.`` before it is understood), values as in a run's ``--set``.

    Raises:
        UsageError: no such setting or value.
    """
    given: dict[str, Any] = {}
    for text in sets:
        name, equals, value = text.partition("=")
        name = name.strip().removeprefix("androidworld.").removeprefix("env.")
        if not equals or name not in KNOBS:
            raise UsageError(f"There is no setting {text!r} of the emulator.", f"Write NAME=VALUE; names are {', '.join(KNOBS)}.")
        given[name] = _read(name, value.strip())
    check(given)
    return given


def _read(name: str, value: str) -> Any:
    kind = type(KNOBS[name].default)
    try:
        return kind(value)
    except ValueError:
        return value  # refused by the check, which says what it should be
