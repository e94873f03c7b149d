"""Providers by name, and the one that all environments of a run share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from envs.androidworld.addresses import AddressProvider, parse_address
from envs.androidworld.knobs import KNOBS, boot_seconds, check
from envs.androidworld.providers import (
    COLD_SECONDS,
    OUR_IMAGE,
    STARTS,
    ContainerProvider,
    OurProvider,
    Provider,
    UpstreamProvider,
    missing,
    our_device,
    our_spec,
)
from envs.containers import Container, Fleet
from envs.errors import UsageError


def make_provider(
    name: str, run: str = "androidworld", *, image: str = "", spares: int = 0, knobs: Mapping[str, Any] | None = None
) -> Provider:
    """``ours``, ``upstream``, or the address of running servers.

    Raises:
        UsageError: neither.
        SetupError: the machine cannot run it.
    """
    kinds: dict[str, type[ContainerProvider]] = {"ours": OurProvider, "upstream": UpstreamProvider}
    if name in kinds:
        return kinds[name](run, image=image, spares=spares, knobs=knobs)
    check(knobs or {}, name)
    return AddressProvider(name)


def default_workers(options: Mapping[str, Any]) -> int:
    """As many workers as there are addresses, else one: an emulator wants four cores and six gigabytes."""
    provider = options.get("provider", "ours")
    if not isinstance(provider, str) or provider in ("ours", "upstream"):
        return 1
    return len(parse_address(provider)[1])


@contextmanager
def shared_options(options: dict[str, Any], run: str, workers: int) -> Iterator[dict[str, Any]]:
    """The environment options of a run with one provider for all its environments, closed at the end."""
    provider = options.get("provider", "ours")
    if not isinstance(provider, str):
        yield options
        return
    own = {name: options[name] for name in ("image", "spares") if name in options}
    knobs = {name: options[name] for name in KNOBS if name in options}
    made = make_provider(provider, run, knobs=knobs, **own)
    try:
        if isinstance(made, AddressProvider):
            if workers > len(made.ports):
                what = f"{workers} workers, but {len(made.ports)} {'server' if len(made.ports) == 1 else 'servers'} at {provider}."
                raise UsageError(what, f"Use --workers {len(made.ports)}.")
            made.check()
        yield {name: value for name, value in options.items() if name not in own and name not in knobs} | {"provider": made}
    finally:
        made.close()


def start_ours(count: int, *, run: str, ttl: int, options: Mapping[str, Any]) -> list[Container]:
    """Start emulators that outlive this process, until they are stopped or their time to live (seconds) is over.

    Args:
        options: ``image``, and settings of the emulator (:data:`envs.androidworld.knobs.KNOBS`).

    Raises:
        UsageError: another option, or a value that the emulator would refuse.
        SetupError: the machine cannot run it.
    """
    knobs = {name: value for name, value in options.items() if name != "image"}
    check(knobs)
    spec = our_spec(str(options.get("image") or OUR_IMAGE), knobs)
    fleet = Fleet(run, ttl=ttl, detached=True, starts=STARTS)
    seconds = max(COLD_SECONDS, boot_seconds(knobs))
    return fleet.start_many(spec, count, lambda container: missing(our_device(container)), seconds)
