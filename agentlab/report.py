"""The final table of a run, for the terminal and as Markdown: one list of lines, two ways to print it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from agentlab.metrics import SPLIT, Row, Summary, sessions, success_at, summarize

Line = tuple[str, str]


def summary_lines(summary: Summary) -> list[Line]:
    """(name, value) of everything the table shows, in order."""
    unfinished = summary.sessions - summary.finished
    lines = [("sessions", f"{summary.finished}" + (f" of {summary.sessions} ({unfinished} not finished)" if unfinished else ""))]
    lines += [(f"success@{k}", f"{share:.1%}") for k, share in enumerate(summary.success_at, start=1)]
    lines.append(("newly solved per attempt", " ".join(str(n) for n in summary.newly_solved)))
    lines.append(("correction uplift", _share(summary.correction_uplift) + f" of {summary.failed_first} failed at attempt 1"))
    lines.append(("average attempts", _number(summary.average_attempts)))
    lines.append(("attempts per solved task", _number(summary.attempts_per_solved)))
    lines.append(("exact repeats among retries", _share(summary.exact_repeats)))
    lines.append(("unparsable replies", _share(summary.unparsable)))
    if summary.updates:
        lines.append(("weight updates accepted", f"{summary.updates_accepted} of {summary.updates}"))
    lines += [(f"seconds per attempt, {part}", f"{summary.seconds_per_attempt[part]:.3f}") for part in SPLIT]
    lines.append(("seconds per session", _number(summary.seconds_per_session)))
    lines += [(f"peak memory, {name.replace('_', ' ')}", f"{mb:,.0f} MB") for name, mb in sorted(summary.memory.items())]
    lines.append(
        ("machinery failures", f"{summary.infrastructure_failures} (sessions ended by them: {summary.infrastructure_sessions})")
    )
    return lines


def summary_table(summary: Summary, title: str) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in summary_lines(summary):
        table.add_row(name, value)
    return table


def task_table(rows: list[Row], attempts: int) -> Table:
    """Success by task name."""
    table = Table(title="by task", title_justify="left")
    for column in ("task", "sessions", "success@1", f"success@{attempts}"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for name, count, first, last in _by_name(rows, attempts):
        table.add_row(name, str(count), f"{first:.0%}", f"{last:.0%}")
    return table


def markdown(rows: list[Row], config: Mapping[str, Any], title: str) -> str:
    """The same tables for a README or an issue."""
    attempts = int(config["attempts"])
    out = [f"# {title}", "", "| metric | value |", "|---|---|"]
    out += [f"| {name} | {value} |" for name, value in summary_lines(summarize(rows, attempts=attempts))]
    out += ["", f"| task | sessions | success@1 | success@{attempts} |", "|---|---|---|---|"]
    out += [f"| {name} | {count} | {first:.0%} | {last:.0%} |" for name, count, first, last in _by_name(rows, attempts)]
    return "\n".join(out) + "\n"


def _by_name(rows: list[Row], attempts: int) -> list[tuple[str, int, float, float]]:
    found = sessions(rows)
    names = sorted({s.name for s in found})
    groups = [(name, [s for s in found if s.name == name]) for name in names]
    return [(name, len(group), success_at(group, 1), success_at(group, attempts)) for name, group in groups]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
