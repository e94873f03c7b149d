"""Reasoning as a :class:`~envs.benchmark.Benchmark`; what is heavy is imported when it is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Any

import typer

from envs.base import TaskSuite
from envs.benchmark import Benchmark, Check, Say, Watcher
from envs.errors import SetupError, UsageError, did_you_mean

EXTRA = "pip install '.[reasoning]'"
SETUP = "agentlab setup reasoning"
CODE = ("humaneval", "bigcodebench-hard")
PARTS = {
    "gym": "procedural questions of reasoning-gym by seed, as without a part",
    "numbers": "those of them whose answer is a number: a hint can say too large, too small",
    "math": "MATH", "math500": "MATH-500", "aime25": "AIME25", "gpqa-diamond": "GPQA-diamond", "mmlu-redux": "MMLU-Redux",
    "supergpqa": "SuperGPQA", "humaneval": "HumanEval: code, tried in a container", "bigcodebench-hard": "BigCodeBench-Hard: code",
    "mt-aime24": "AIME 2024 in 55 languages", "mt-math100": "100 problems of MATH-500 in 55 languages", "m-imo": "IMO in 38 languages",
}  # fmt: skip


class Reasoning(Benchmark):
    """Questions in text, one answer per attempt, graded by verifiers."""

    name = "reasoning"
    summary = "Reasoning: questions in text, graded by verifiers; endless instances, the papers' data sets, or your own JSONL"
    environment = "envs.reasoning.env:ReasoningEnv"
    parts = PARTS
    takes_files = True

    def suite(self, part: str = "") -> TaskSuite:
        from envs.reasoning.suite import GYM_PARTS, FixedSuite, GymSuite

        return GymSuite(part or "gym") if (part or "gym") in GYM_PARTS else FixedSuite(part)

    def judged(self, options: Mapping[str, Any]) -> bool:
        return options.get("feedback") == "judge"

    def default_workers(self, options: Mapping[str, Any]) -> int | None:
        return 16  # questions wait for nothing but the model, which answers them in one batch

    def lacking(self, part: str, options: Mapping[str, Any]) -> Iterator[SetupError]:
        for module, package in (("math_verify", "math-verify"), ("reasoning_gym", "reasoning-gym")):
            if importlib.util.find_spec(module) is None and (module != "reasoning_gym" or part in ("", "gym", "numbers")):
                yield SetupError(f"The reasoning benchmark needs the package {package}.", EXTRA)
        if part in CODE:
            try:
                _image()
            except SetupError as error:
                yield error

    def shared(self, options: dict[str, Any], run: str, workers: int) -> AbstractContextManager[dict[str, Any]]:
        return _one_sandbox(options, run)

    def checks(self) -> Iterator[Check]:
        yield Check("math-verify", lambda: _module("math_verify"), EXTRA)
        yield Check("reasoning-gym", lambda: _module("reasoning_gym"), EXTRA)
        yield Check("sandbox for code answers", _image, SETUP)

    def setup(self, say: Say) -> None:
        """Build the image in which code answers are tried."""
        from envs.containers import build_image
        from envs.reasoning.code import DOCKERFILE, IMAGE

        build_image(DOCKERFILE, IMAGE, say)
        say(f"{IMAGE} is ready.")

    def fetch(
        self,
        watch: Watcher,
        name: Annotated[str, typer.Argument(help="Data set, e.g. math500; without one they are listed.")] = "",
        *,
        revision: Annotated[str, typer.Option(help="Commit on the hub.")] = "",
        update: Annotated[bool, typer.Option("--update", help="Take a newer commit in the place of the one that is here.")] = False,
    ) -> None:
        """The papers' data sets, each under its own licence."""
        from envs.reasoning.datasets import DATASETS
        from envs.reasoning.fetch import fetch

        if not name:
            for key, dataset in DATASETS.items():
                watch.say(
                    f"{key:18} {dataset.title} · {dataset.source} · {dataset.licence}{' · on request' if dataset.gated else ''}"
                )
            return
        if name not in DATASETS:
            raise UsageError(f"There is no data set {name!r}.", did_you_mean(name, DATASETS, what="data set"))
        fetch(name, watch, revision=revision, update=update)


@contextmanager
def _one_sandbox(options: dict[str, Any], run: str) -> Iterator[dict[str, Any]]:
    """One sandbox for all environments of a run, where a Docker Engine answers; it starts nothing before code is to be tried."""
    from envs.reasoning.code import IMAGE, SECONDS, Sandbox

    if "sandbox" in options:
        yield options
        return
    try:
        sandbox = Sandbox(run, image=options.get("code_image", IMAGE), seconds=float(options.get("code_seconds", SECONDS)))
    except SetupError:  # no question of code can be in this run: `lacking` has looked
        yield options
        return
    try:
        yield {**options, "sandbox": sandbox}
    finally:
        sandbox.close()


def _module(name: str) -> str:
    if importlib.util.find_spec(name) is None:
        raise SetupError(f"{name} is not installed.", EXTRA)
    return "installed"


def _image() -> str:
    from envs.containers.engine import connect, require_image
    from envs.reasoning.code import IMAGE, MEND

    require_image(connect(), IMAGE, MEND)
    return f"{IMAGE} is here"


BENCHMARK = Reasoning()
