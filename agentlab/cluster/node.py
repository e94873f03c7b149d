"""What a node says of itself, when it is asked; every function here runs there."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from envs import containers
from envs.errors import InfrastructureError, LabError, SetupError
from envs.suites import find_benchmark, installed_benchmarks, lacking, locate

PACKAGES = ("agentlab", "envs")
"""What an environment on a node consists of."""


@dataclass(frozen=True)
class Readiness:
    """Whether a node is ready for a run.

    Attributes:
        code: Of which version agentlab is there: :func:`code`.
        traits: What results may depend on there, e.g. which browser.
        lacking: What is missing, each with what brings it.
        said: What a person should know: what was installed, or removed.
    """

    code: str
    traits: Mapping[str, str]
    lacking: tuple[LabError, ...] = ()
    said: tuple[str, ...] = ()


@functools.cache
def code() -> str:
    """The version of agentlab here, with a digest of what would run: two clones of one version may differ."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec is not None else []:
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    try:
        known = version("rosa-agentlab")
    except PackageNotFoundError:
        known = "not installed"
    return f"{known} ({digest.hexdigest()[:12]})"


def report(suite: str, options: Mapping[str, Any]) -> Readiness:
    """Make this node ready for a run of ``suite``: remove what dead runs left, bring what can be brought, say what is missing."""
    said = [f"removed {name}, which a dead run left" for name in clean()]
    benchmark, _ = locate(suite)
    try:
        benchmark.prepare(options, said.append)
        missing: list[LabError] = list(lacking(suite, options))
        traits = dict(benchmark.traits(options)) if not missing else {}
    except SetupError as error:
        missing, traits = [error], {}
    return Readiness(code(), traits, tuple(missing), tuple(said))


def clean() -> list[str]:
    """Remove the containers that dead runs of this user left here; their names.  Nothing where no engine of this machine answers."""
    try:
        return containers.gc()
    except (SetupError, InfrastructureError):
        return []  # a run that needs the engine is told so by what it lacks


def room() -> dict[str, tuple[int, str]]:
    """Place -> how many environments that take one this machine has room for, and whose they are, or why there are none."""
    found: dict[str, tuple[int, str]] = {}
    for name, benchmark in installed_benchmarks():
        if isinstance(benchmark, LabError) or not benchmark.place:
            continue
        try:
            count, why = max(benchmark.places(), 0), name
        except LabError as error:
            count, why = 0, f"{name}: {error.message}"
        if count >= found.get(benchmark.place, (0, ""))[0]:
            found[benchmark.place] = (count, why)
    return dict(sorted(found.items()))


def offered() -> dict[str, int]:
    """The resources to start Ray with on this machine."""
    return {place: count for place, (count, _) in room().items() if count}


@dataclass(frozen=True)
class Line:
    """One finding of ``agentlab doctor`` on a node."""

    what: str
    ok: bool
    detail: str
    mend: str = ""
    needed: bool = True


@dataclass(frozen=True)
class Checkup:
    """What ``agentlab cluster doctor`` is told by a node."""

    code: str
    python: str
    findings: tuple[Line, ...]
    room: Mapping[str, tuple[int, str]]
    leftovers: tuple[str, ...]


def checkup(benchmark: str | None) -> Checkup:
    """Everything that benchmarks (or one of them) want of this machine, found or not."""
    chosen = [(benchmark, find_benchmark(benchmark))] if benchmark else list(installed_benchmarks())
    findings: dict[str, Line] = {}
    for name, found in chosen:
        if isinstance(found, LabError):
            findings[name] = Line(f"benchmark {name}", False, found.message, found.hint, needed=False)
            continue
        for check in found.checks():
            if check.what in findings:
                continue
            try:
                findings[check.what] = Line(check.what, True, check.probe(), needed=check.needed)
            except LabError as error:
                findings[check.what] = Line(check.what, False, error.message, check.mend or error.hint, check.needed)
    return Checkup(code(), platform.python_version(), tuple(findings.values()), room(), tuple(_leftovers()))


def _leftovers() -> list[str]:
    try:
        return [row.name for row in containers.ls() if row.leftover]
    except (SetupError, InfrastructureError):
        return []
