"""AndroidWorld as a :class:`~envs.benchmark.Benchmark`; what is heavy is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from envs.base import TaskSuite
from envs.benchmark import Benchmark, Check, Watcher
from envs.errors import SetupError

if TYPE_CHECKING:
    from envs.containers import Container

FETCH = "agentlab fetch androidworld"


class AndroidWorld(Benchmark):
    """A phone with its applications, graded by AndroidWorld's own code."""

    name = "androidworld"
    summary = "AndroidWorld: an Android phone in an emulator, graded by AndroidWorld's own code"
    environment = "envs.androidworld.env:AndroidWorldEnv"
    parts = {
        "android": "upstream's family of that name",
        "information-retrieval": "tasks that are answered",
        "miniwob": "MiniWoB's pages on the phone",
        "miniwob-subset": "those that upstream reports",
    }
    place = "phones"

    def suite(self, part: str = "") -> TaskSuite:
        from envs.androidworld.suite import AndroidWorldSuite

        return AndroidWorldSuite(part.replace("-", "_") or "android_world")

    def default_workers(self, options: Mapping[str, Any]) -> int | None:
        from envs.androidworld.machinery import default_workers

        return default_workers(options)

    def lacking(self, part: str, options: Mapping[str, Any]) -> Iterator[SetupError]:
        from envs.androidworld.setup import lacking

        yield from lacking(options)

    def shared(self, options: dict[str, Any], run: str, workers: int) -> AbstractContextManager[dict[str, Any]]:
        from envs.androidworld.machinery import shared_options

        return shared_options(options, run, workers)

    # -- on the nodes of a cluster ---------------------------------------------------------------------------------------------
    def places(self) -> int:
        from envs.androidworld.setup import places

        return places()

    def unspreadable(self, options: Mapping[str, Any]) -> str:
        provider = options.get("provider", "ours")
        return "" if provider in ("ours", "upstream") else f"{provider} runs already."

    # -- this machine ----------------------------------------------------------------------------------------------------------
    def checks(self) -> Iterator[Check]:
        from envs.androidworld.providers import kvm_runs
        from envs.androidworld.setup import enough_disk, image_found
        from envs.containers import engine_check

        yield engine_check()
        yield Check("AndroidWorld image", image_found, FETCH)
        yield Check("disk for AndroidWorld", enough_disk)
        yield Check("/dev/kvm", kvm_runs)

    def fetch(
        self,
        watch: Watcher,
        *,
        base: Annotated[
            str, typer.Option(help="Build upon this image, made by upstream's own Dockerfile, instead of upon our own base.")
        ] = "",
        prepare: Annotated[
            bool,
            typer.Option("--prepare/--no-prepare", help="Install the applications once, so that every start is warm (needs KVM)."),
        ] = True,
        sets: Annotated[
            list[str] | None,
            typer.Option(
                "--set", help="A setting of the emulator that installs them, e.g. boot_timeout_s=1800 (docs/androidworld.md)."
            ),
        ] = None,
    ) -> None:
        """AndroidWorld's emulator image with our guest server, from pinned inputs on; the same command continues."""
        from envs.androidworld.knobs import parse_sets
        from envs.androidworld.setup import fetch

        fetch(watch, base=base, prepare=prepare, knobs=parse_sets(sets or []))

    def start(self, count: int, *, run: str, ttl: int, options: Mapping[str, Any]) -> Sequence[Container]:
        """Emulators."""
        from envs.androidworld.machinery import start_ours

        return start_ours(count, run=run, ttl=ttl, options=options)

    def address(self, container: Container) -> str:
        return f"127.0.0.1:{container.ports[5000]}"


BENCHMARK = AndroidWorld()
