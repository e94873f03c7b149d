"""OSWorld as a :class:`~envs.benchmark.Benchmark`; what is heavy is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from envs.base import TaskSpec, TaskSuite
from envs.benchmark import Benchmark, Check, Say, Watcher, Workload
from envs.errors import SetupError
from envs.osworld.suite import LIGHT, UPSTREAM, OSWorldSuite

if TYPE_CHECKING:
    from envs.containers import Container


class OSWorld(Benchmark):
    """Desktops: OSWorld's own tasks on its own machine, and ours on a light one."""

    name = "osworld"
    summary = "OSWorld: a Linux desktop with its applications, graded by OSWorld's own code"
    environment = "envs.osworld.env:OSWorldEnv"
    parts = {
        **{subset: f"OSWorld's own list of {count} tasks" for subset, count in UPSTREAM.items()},
        LIGHT: "our tasks for the light desktop",
    }
    takes_files = True
    importer = "agentlab.exchange.import_osworld:import_osworld"
    place = "desktops"

    def suite(self, part: str = "") -> TaskSuite:
        return OSWorldSuite(part or "test_all")

    def default_options(self, part: str) -> dict[str, Any]:
        """OSWorld's own tasks are for OSWorld's own machine."""
        return {"provider": "official"} if (part or "test_all") in UPSTREAM else {}

    # -- before and during a run -----------------------------------------------------------------------------------------------
    def lacking(self, part: str, options: Mapping[str, Any]) -> Iterator[SetupError]:
        from envs.osworld.needs import lacking

        yield from lacking(part, options)

    def remarks(self, options: Mapping[str, Any], tasks: Sequence[TaskSpec]) -> Iterator[str]:
        from envs.osworld.needs import remarks

        yield from remarks(options, tasks)

    def estimates(self, part: str, options: Mapping[str, Any], work: Workload) -> Iterator[str]:
        from envs.osworld.needs import estimates

        yield from estimates(part, options, work)

    def shared(self, options: dict[str, Any], run: str, workers: int) -> AbstractContextManager[dict[str, Any]]:
        from envs.osworld.machinery import shared_options

        return shared_options(options, run, workers)

    # -- on the nodes of a cluster ---------------------------------------------------------------------------------------------
    def places(self) -> int:
        from envs.osworld.needs import places

        return places()

    def unspreadable(self, options: Mapping[str, Any]) -> str:
        from envs.osworld.needs import provider_of

        return f"{options['provider']} runs already." if provider_of(options) == "address" else ""

    # -- this machine ----------------------------------------------------------------------------------------------------------
    def checks(self) -> Iterator[Check]:
        from envs.osworld import checks

        yield from checks.checks()

    def fetch(
        self,
        watch: Watcher,
        *,
        suite: Annotated[str, typer.Option(help="test_all, test_nogdrive, test_small, light, or a path to tasks.")] = "test_all",
        limit: Annotated[int | None, typer.Option(help="Fetch the files of this many tasks only.", min=1)] = None,
        files: Annotated[
            bool, typer.Option("--files/--no-files", help="Fetch the files that tasks open and are compared with.")
        ] = True,
        vm: Annotated[bool, typer.Option("--vm", help="Also fetch the official virtual machine (12 GB, 24 GB unpacked).")] = False,
        ocr: Annotated[bool, typer.Option("--ocr", help="Also install easyocr, which grades three tasks (5 GB).")] = False,
    ) -> None:
        """OSWorld's pinned task set, the files its tasks use, and its grader in a virtual environment of its own (1.5 GB)."""
        from envs.osworld.fetch import fetch

        fetch(suite, watch, limit=limit, files=files, disk=vm, ocr=ocr)

    def build(self, say: Say) -> str:
        """The light desktop's image."""
        from envs.containers import build_image
        from envs.osworld.providers import LIGHT_DOCKERFILE, LIGHT_IMAGE

        build_image(LIGHT_DOCKERFILE, LIGHT_IMAGE, say)
        return LIGHT_IMAGE

    def start(self, count: int, *, run: str, ttl: int, options: Mapping[str, Any]) -> Sequence[Container]:
        """Light desktops."""
        from envs.osworld.machinery import start_light

        return start_light(count, run=run, ttl=ttl, options=options)

    def address(self, container: Container) -> str:
        from envs.containers.fleet import LOOPBACK
        from envs.osworld.address import written

        return written(LOOPBACK, container.ports)


BENCHMARK = OSWorld()
