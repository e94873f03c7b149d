"""The tables of a paired comparison (``paired.py``), as Markdown."""

from __future__ import annotations

from typing import Any

from formats import markdown_table, number, points, share, span

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


def versus_table(data: Json, reference: str) -> str:
    """Paired differences to one method."""
    ks = attempts_of(data)
    rows = []
    for m in data["methods"]:
        versus = m["against"].get(reference)
        if versus:
            saving = versus["attempts_per_solved"]
            rows.append((
                f"`{m['method']}`",
                points(versus[ks[0]]),
                points(versus[ks[-1]]),
                "–" if saving is None else f"{100 * saving['change']:+.0f} % ({100 * saving['low']:+.0f}…{100 * saving['high']:+.0f})",
            ))  # fmt: skip
    return markdown_table(("method", f"success@{ks[0]}", f"success@{ks[-1]}", "attempts per solved"), rows)


def uplift_table(data: Json) -> str:
    """ROSA2 Table 2: uplift, average attempts."""
    last = attempts_of(data)[-1]
    rows = [
        (
            f"`{m['method']}`", f"{m['solved']}/{m['n']}", share(m["within"][last]["mean"]),
            number(m["average_attempts"]), number(m["attempts_per_solved"]),
        )
        for m in data["methods"]
    ]  # fmt: skip
    return markdown_table(("method", "corrected", "uplift %", "average attempts", "attempts per solved"), rows)


def updates_table(data: Json) -> str:
    """What the weight updates did to the policy."""
    rows = [
        (
            f"`{m['method']}`", f"{u['accepted']}/{u['made']}", str(u["fallback"]), number(u["rank"], 1),
            number(u["residual_ratio"], 3), number(u["log_odds_shift"]), number(u["kl_mean"], 3),
        )
        for m in data["methods"]
        if (u := m["updates"])
    ]  # fmt: skip
    return markdown_table(("method", "accepted", "no token undecided", "rank", "‖R‖ after/before", "log-odds", "KL"), rows)


def theorem(data: Json) -> str:
    """ROSA2 Figure 3 as a table, and how often Theorem 4.1's inequality held."""
    terms = data.get("error_terms")
    if not terms or not terms["theorem"]["n"]:
        return ""
    rows = [
        (
            t, str(e["n"]), f"{e['residual']:.4g}", f"{e['residual_refined']:.4g}",
            f"{e['delta_norm2']:.4g}", f"{e['delta_norm2_refined']:.4g}", number(e["distance"]),
        )
        for t, e in terms["by_attempt"].items()
    ]  # fmt: skip
    held = terms["theorem"]
    n = held["n"]
    return (
        markdown_table(("after attempt", "updates", "‖R‖", "‖R‖ refined", "‖Δθ‖²", "‖Δθ‖² refined", "‖Δx‖²"), rows)
        + f"\nMedians; *refined*: under the guidance written after the attempt. Theorem 4.1 says that both are smaller there: ‖R‖ was "
        f"in {held['residual_smaller']} of {n} updates ({share(held['residual_smaller'] / n)} %), ‖Δθ‖² in {held['step_smaller']} "
        f"({share(held['step_smaller'] / n)} %).\n"
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
