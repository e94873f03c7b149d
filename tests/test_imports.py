"""Who may import whom: packages and the wings of ``agentlab/`` point downwards only, and no files import each other in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"agentlab": {"retrospect", "policies", "envs"}, "retrospect": {"envs"}, "policies": {"envs"}, "envs": set()}
WINGS = {
    "__main__": {"cli", "house"},
    "house": set(),
    "cli": {"disk", "results", "run", "cluster", "experience", "exchange", "replay", "view", "pretrain"},
    "view": {"disk", "results", "exchange"},
    "replay": {"disk", "results", "run", "exchange"},
    "exchange": {"disk", "run"},
    "run": {"disk", "cluster", "experience", "results"},
    "cluster": set(),
    "pretrain": {"disk"},
    "results": {"disk"},
    "experience": {"disk"},
    "disk": set(),
}
"""What each wing may import, as docs/architecture.md has it.  A new arrow is a decision: it belongs there and here."""
BENCHMARKS = {path.parent.name for path in (ROOT / "envs").glob("*/benchmark.py")}


def module_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run_imports(tree: ast.AST):
    """Import statements that are run, those inside functions too; not those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from run_imports(node)


def imports(root: Path) -> dict[str, set[str]]:
    """Module -> modules of the four packages that it imports."""
    files = {module_of(path, root): path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))}
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        names = set()
        for node in run_imports(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
                continue
            base = node.module or ""
            if node.level:
                here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                base = ".".join([*here[: len(here) - node.level + 1], *filter(None, [node.module])])
            # `from package import module` names a module; `from module import Name` does not
            names |= {full if (full := f"{base}.{alias.name}") in files else base for alias in node.names}
        found[module] = {name for name in names if name in files and name != module}
    return found


def wing(module: str) -> str:
    return [*module.split("."), ""][1]


def wrong_arrows(graph: dict[str, set[str]]) -> list[str]:
    """Imports that do not point downwards, and those that know a benchmark which only a benchmark's folder should know."""
    wrong = []
    for module, targets in graph.items():
        package = module.split(".")[0]
        for target in targets:
            other = target.split(".")[0]
            allowed = other == package or other in PACKAGES[package]
            if package == other == "agentlab" and wing(target) and wing(module) != wing(target):
                allowed = wing(target) in WINGS.get(wing(module), set())
            if other == "envs" and wing(target) in BENCHMARKS:  # the bundled policy is trained on MiniWoB++, and says so
                at_home = package == "envs" and wing(module) == wing(target)
                allowed = allowed and (at_home or module.startswith(("agentlab.pretrain", "policies.nano")))
            if not allowed:
                wrong.append(f"{module} -> {target}")
    return sorted(wrong)


@pytest.fixture(scope="module")
def graph():
    return imports(ROOT)


def test_imports_point_downwards_and_only_a_benchmark_knows_itself(graph):
    assert len(graph) > 200 and len(BENCHMARKS) >= 3
    assert wrong_arrows(graph) == []


def test_every_wing_is_in_the_table_and_every_arrow_of_it_is_used(graph):
    used = {
        (wing(a), wing(b))
        for a, targets in graph.items()
        for b in targets
        if a.startswith("agentlab.") and b.startswith("agentlab.")
    }
    assert {wing(module) for module in graph if module.startswith("agentlab.")} == set(WINGS)
    assert {(a, b) for a, b in used if a != b} == {(a, b) for a, targets in WINGS.items() for b in targets}


def test_no_files_import_each_other_in_a_circle(graph):
    TopologicalSorter(graph).prepare()


def test_what_points_upwards_sideways_or_back_is_found(tmp_path):
    files = {
        "envs/base.py": "import policies.base",
        "envs/miniwob/benchmark.py": "",
        "policies/base.py": "def late():\n    from retrospect import trace",
        "retrospect/trace.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from agentlab.disk import store",
        "agentlab/disk/store.py": "from ..cli import app",
        "agentlab/cli/app.py": "from envs.miniwob.benchmark import BENCHMARK\nfrom agentlab.disk import store",
    }
    for name, text in files.items():
        path = tmp_path / name
        for folder in (path.parent, *path.parent.parents):
            if folder.is_relative_to(tmp_path) and folder != tmp_path:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "__init__.py").touch()
        path.write_text(text, encoding="utf-8")
    graph = imports(tmp_path)
    assert wrong_arrows(graph) == [
        "agentlab.cli.app -> envs.miniwob.benchmark",
        "agentlab.disk.store -> agentlab.cli.app",
        "envs.base -> policies.base",
        "policies.base -> retrospect.trace",
    ]
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()
