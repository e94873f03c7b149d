"""A name means one thing: whoever reads a class's name knows which one it is."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]


def world(path: Path) -> str:
    """Each benchmark's folder has words of its own (a provider of phones, a provider of desktops); what all share is one world."""
    parts = path.relative_to(ROOT).parts
    return parts[1] if parts[0] == "envs" and len(parts) > 2 and parts[1] != "containers" else "shared"


def test_no_two_classes_have_one_name():
    places = defaultdict(list)
    for package in ("agentlab", "retrospect", "policies", "envs"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(path)
    assert len(places) > 200
    clashes = {
        name: [str(path.relative_to(ROOT)) for path in found]
        for name, found in places.items()
        if len({world(path) for path in found}) < len(found) or (len(found) > 1 and "shared" in map(world, found))
    }
    assert not clashes
