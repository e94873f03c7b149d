"""What this machine has and lacks: one line each, and the command that mends it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from envs.benchmark import Check
from envs.errors import LabError, SetupError
from envs.suites import installed_benchmarks


@dataclass(frozen=True)
class Diagnosis:
    """One line of the report.  ``mend`` is a command; ``needed`` is False for what only some benchmarks or models want."""

    what: str
    ok: bool
    detail: str
    mend: str = ""
    needed: bool = True


def line_of(finding: Diagnosis) -> str:
    """A finding as it is printed, with Rich's marks."""
    mark = "[green]ok[/green]" if finding.ok else "[red]missing[/red]" if finding.needed else "[yellow]absent[/yellow]"
    mend = f"  →  {escape(finding.mend)}" if finding.mend and not finding.ok else ""
    return f"{mark}  {escape(finding.what)}: {escape(finding.detail)}{mend}"


def examine() -> Iterator[Diagnosis]:
    """All findings, cheap ones first."""
    version = ".".join(str(v) for v in sys.version_info[:3])
    yield Diagnosis("Python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")
    for module in (
        "torch",
        "torchvision",
        "transformers",
        "peft",
        "qwen_vl_utils",
        "gymnasium",
        "textgrad",
    ):
        found = importlib.util.find_spec(module) is not None
        yield Diagnosis(module, found, "installed" if found else "missing", "python -m pip install -e .")
    yield _writable(Path("runs"))
    yield _memory()
    yield _tried("bundled policy", _bundled, "agentlab pretrain")
    yield _tried("GPU", _gpu, "", needed=False)
    yield from _of_benchmarks()


def _of_benchmarks() -> Iterator[Diagnosis]:
    """What the installed benchmarks want; what several want by the same name is looked for once."""
    wanted: dict[str, tuple[Check, list[str]]] = {}
    for name, benchmark in installed_benchmarks():
        if isinstance(benchmark, LabError):
            yield Diagnosis(f"benchmark {name}", False, benchmark.message, benchmark.hint, needed=False)
            continue
        for check in benchmark.checks():
            wanted.setdefault(check.what, (check, []))[1].append(name)
    for check, names in wanted.values():
        what = check.what if check.what.lower().startswith(tuple(names)) else f"{check.what} ({', '.join(names)})"
        yield _tried(what, check.probe, check.mend, needed=check.needed)


def _tried(what: str, probe: Callable[[], str], mend: str, *, needed: bool = True) -> Diagnosis:
    try:
        return Diagnosis(what, True, probe(), needed=needed)
    except LabError as error:
        return Diagnosis(what, False, error.message, mend or error.hint, needed)


def _writable(folder: Path) -> Diagnosis:
    there = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(there).free / 2**30
    ok = os.access(there, os.W_OK) and free > 1
    return Diagnosis("run directory", ok, f"{folder.resolve()}, {free:.0f} GB free", "agentlab run ... --out DIR")


def _memory() -> Diagnosis:
    import psutil

    free = psutil.virtual_memory().available / 2**30
    return Diagnosis("memory", free > 2, f"{free:.1f} GB available, {os.cpu_count()} CPUs", "close other programs", needed=False)


def _bundled() -> str:
    from policies.registry import bundled_checkpoint

    return str(bundled_checkpoint())


def _gpu() -> str:
    smi = shutil.which("nvidia-smi")
    if smi is None:
        raise SetupError("none found; policies run on the CPU")
    command = [smi, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired as error:
        raise SetupError("nvidia-smi does not answer; the driver may hang") from error
    if found.returncode != 0 or not found.stdout.strip():
        raise SetupError(f"nvidia-smi reports no GPU: {found.stderr.strip() or found.stdout.strip()}")
    return "; ".join(found.stdout.strip().splitlines())
