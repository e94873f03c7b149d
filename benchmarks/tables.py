"""The tables of the earlier comparison on MiniWoB++, of which only sums were kept."""

from __future__ import annotations

from typing import Any

from formats import markdown_table, number, share, span

Json = dict[str, Any]


WORDS = {"textgrad", "rosa2"}
"""Methods with words, by the engine ``rules``."""


def success_table(data: Json, seconds: dict[str, float]) -> str:
    """Solved within k, of failing first attempts and (extrapolated) of all instances; ``seconds`` per solved instance by method."""
    ks, first = attempts_of(data), data["first_attempts"]["success"]
    rows = [
        (
            _named(m["method"]),
            *(span(m["within"][k]) for k in ks),
            share(first + (1 - first) * m["within"][ks[-1]]["mean"]),
            number(m["attempts_per_solved"], 1),
            number(seconds.get(m["method"]), 0),
            share(m["exact_repeats"]),
            share(m["unparsable"]),
            share(m.get("unparsable_draws")),
        )
        for m in data["methods"]
    ]
    prices = ("attempts per solved", "seconds per solved (extrapolated)")
    header = (
        "method",
        *(f"≤{k}" for k in ks),
        f"all instances, ≤{ks[-1]} (extrapolated)",
        *prices,
        "repeats",
        "unparsable",
        "of draws",
    )
    return markdown_table(header, rows)


def _named(method: str) -> str:
    return f"`{method} (words: rules)`" if method in WORDS else f"`{method}`"


def by_task(data: Json) -> str:
    """Solved of failing, per task."""
    names = [m["method"] for m in data["methods"]]
    rows = [
        (task, str(next(iter(found.values()))[1]), *(str(found[n][0]) for n in names)) for task, found in data["by_task"].items()
    ]
    return markdown_table(("task", "failing", *map(_named, names)), rows)


def attempts_of(data: Json) -> list[str]:
    """The k of success@k."""
    return sorted(data["methods"][0]["within"], key=int)
