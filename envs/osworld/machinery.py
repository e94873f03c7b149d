"""What all environments of a run share: one provider of guests, and one grader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from envs.containers import Container, Fleet
from envs.errors import SetupError, UsageError, did_you_mean
from envs.osworld.address import AddressProvider
from envs.osworld.grading import OfficialGrader
from envs.osworld.official import OfficialProvider
from envs.osworld.providers import LIGHT_BOOT_SECONDS, ContainerProvider, LightProvider, Provider, light_spec, probe
from envs.osworld.upstream import disk_file

ADDRESS = "address:"
NAMES = ("light", "official")
PROVIDER_OPTIONS = ("screen", "disk", "ram", "cores", "password", "spares")
LIGHT_OPTIONS = ("screen", "ram", "cores")
"""What can be said of a light desktop."""
MOST_SPARES = 2
"""More would boot while others do."""


def make_provider(
    name: str,
    run: str = "osworld",
    *,
    screen: tuple[int, int] = (1920, 1080),
    disk: str | None = None,
    ram: str | None = None,
    cores: int | None = None,
    password: str = "password",
    spares: int | None = None,
) -> Provider:
    """``light``, ``official``, or ``address:`` and where guests are running (:class:`AddressProvider`).

    Raises:
        UsageError: no such provider.
        SetupError: the machine lacks something that it needs.
    """
    match kind_of(name):
        case "light":
            return LightProvider(run, screen=screen, ram=ram, cores=cores, spares=1 if spares is None else spares)
        case "official":
            return OfficialProvider(disk_of(disk), run, ram=ram, cores=cores, spares=spares or 0)
    return AddressProvider(name.removeprefix(ADDRESS), password=password)


def kind_of(name: str) -> str:
    """``light``, ``official``, or ``address`` for whatever has a port in it.

    Raises:
        UsageError: none of them.
    """
    if name in NAMES:
        return name
    if ":" not in name:
        raise UsageError(f"There is no provider {name!r}.", did_you_mean(name, (*NAMES, ADDRESS), what="provider"))
    return "address"


def disk_of(disk: str | None) -> Path:
    """The official virtual machine's disk: the one that the user names, or the fetched one."""
    return Path(disk).expanduser() if disk else disk_file()


def proxies_of(proxy: str | None) -> Path | None:
    """The file of proxies that the user names.

    Raises:
        SetupError: it is not there.
    """
    if not proxy:
        return None
    path = Path(proxy).expanduser()
    if not path.is_file():
        raise SetupError(f"There is no file of proxies {path}.", "OSWorld's PROXY_GUIDELINE.md says what is in it.")
    return path


@contextmanager
def shared_options(options: dict[str, Any], run: str, workers: int) -> Iterator[dict[str, Any]]:
    """The options of the run's environments, with one provider and one grader for all of them.

    Raises:
        SetupError, UsageError: the machine or the options lack something.
    """
    settings = {name: options[name] for name in PROVIDER_OPTIONS if name in options}
    if "screen" in settings:
        settings["screen"] = tuple(settings["screen"])
    name = str(options.get("provider", "light"))
    if name == "light":
        settings = {"spares": min(workers, MOST_SPARES)} | settings
    proxies = proxies_of(options.get("proxy"))
    provider = make_provider(name, run, **settings)
    try:
        patience = provider.patience if isinstance(provider, ContainerProvider) else 1.0
        grader = OfficialGrader(workers, patience=patience, proxies=proxies)
        try:
            if isinstance(provider, AddressProvider) and workers > len(provider.addresses):
                raise UsageError(
                    f"{workers} workers need {workers} guests, and {len(provider.addresses)} is given.",
                    f"Use --workers {len(provider.addresses)}, or name more, separated by commas.",
                )
            yield options | {"provider": provider, "grader": grader}
        finally:
            grader.close()
    finally:
        provider.close()


def start_light(count: int, *, run: str, ttl: int, options: Mapping[str, Any]) -> list[Container]:
    """Start light desktops that outlive this process, until they are stopped or their time to live (seconds) is over.

    Raises:
        UsageError: an option that says nothing about a light desktop.
    """
    for name in options:
        if name not in LIGHT_OPTIONS:
            raise UsageError(f"A light desktop has no option {name!r}.", did_you_mean(name, LIGHT_OPTIONS, what="option"))
    given = dict(options)
    if "screen" in given:
        given["screen"] = tuple(given["screen"])
    fleet = Fleet(run, ttl=ttl, detached=True)
    return fleet.start_many(light_spec(**given), count, probe, LIGHT_BOOT_SECONDS)
