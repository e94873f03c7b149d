"""The tables of the earlier comparison on MiniWoB++, of which only sums were kept."""

from __future__ import annotations

from typing import Any

from formats import markdown_table, share, span

Json = dict[str, Any]


def success_table(data: Json) -> str:
    """ROSA Table 1/3: solved within k, of failing first attempts and of all instances."""
    ks, first = attempts_of(data), data["first_attempts"]["success"]
    rows = [
        (
            f"`{m['method']}`",
            *(span(m["within"][k]) for k in ks),
            share(first + (1 - first) * m["within"][ks[-1]]["mean"]),
            share(m["exact_repeats"]),
            share(m["unparsable"]),
            share(m.get("unparsable_draws")),
        )
        for m in data["methods"]
    ]
    return markdown_table(
        ("method", *(f"≤{k}" for k in ks), f"all instances, ≤{ks[-1]}", "repeats", "unparsable", "of draws"), rows
    )


def by_task(data: Json) -> str:
    """Solved of failing, per task."""
    names = [m["method"] for m in data["methods"]]
    rows = [
        (task, str(next(iter(found.values()))[1]), *(str(found[n][0]) for n in names)) for task, found in data["by_task"].items()
    ]
    return markdown_table(("task", "failing", *(f"`{n}`" for n in names)), rows)


def attempts_of(data: Json) -> list[str]:
    """The k of success@k."""
    return sorted(data["methods"][0]["within"], key=int)
