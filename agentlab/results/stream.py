"""A run with experience as a stream: what later sessions gain, alone and beside the same order without experience.

The order is that of the plan, which the seed fixes.  All sessions of a stream count, in halves: in the first one there is little to read.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentlab.disk.given import Given
from agentlab.results.metrics import SessionSummary
from agentlab.results.pages import Section
from agentlab.results.resampling import Interval, clusters, paired_bootstrap, sign_flip

Part = tuple[str, slice]
SEED = 0


def halves(count: int) -> list[Part]:
    """The whole stream and its halves, as slices."""
    middle = count // 2
    return [("all", slice(0, count)), ("first half", slice(0, middle)), ("second half", slice(middle, count))]


def attempts_per_solved(found: Sequence[SessionSummary]) -> float | None:
    """Graded attempts of all sessions over the number of solved ones; None if none was."""
    solved = sum(s.solved_at is not None for s in found)
    return sum(s.attempts for s in found) / solved if solved else None


def of_run(found: Sequence[SessionSummary], given: Mapping[str, Given]) -> Section:
    """A run's own stream: how its parts went, what they were given, and what that cost.

    Args:
        found: Its sessions that have ended, in the order of the plan.
        given: By task, of the sessions that have been given something, or could have been.
    """
    rows: list[tuple[str, ...]] = []
    for label, part in halves(len(found)):
        sessions = found[part]
        notes = [given[s.task] for s in sessions if s.task in given]
        if not sessions or not notes:
            continue
        thetas = [note.theta_1 for note in notes]
        cost = [_number(note.theta_1.get("seconds")) + note.left_seconds for note in notes]
        rows.append(
            (
                label,
                str(len(sessions)),
                f"{statistics.fmean(s.solved_within(1) for s in sessions):.1%}",
                _ratio(attempts_per_solved(sessions)),
                f"{statistics.fmean(len(note.lessons) for note in notes):.2f}",
                f"{statistics.fmean(len(note.examples) for note in notes):.2f}",
                f"{sum(bool(theta.get('digest')) for theta in thetas)}",
                f"{sum('reason' in theta for theta in thetas)}",
                f"{statistics.fmean(cost):.2f}",
            )
        )
    header = ("part", "sessions", "success@1", "attempts per solved", "lessons read", "examples read", "θ₁", "no θ₁", "seconds")
    note = (
        "The order is the plan's. Lessons and examples: mean per session. θ₁: sessions that did not start frozen; no θ₁: there was too "
        "little, or it was refused. Seconds: per session, for θ₁ and for what the session leaves, beside those of its attempts."
    )
    return Section("Experience", header, rows, note)


@dataclass(frozen=True)
class Gain:
    """Success@1 of other sessions against the same sessions of a reference.

    Attributes:
        reference, run: Shares solved at the first attempt.
        difference: Of the shares, with its 95 % bootstrap interval, whole task names resampled.
        won, lost: Sessions that only the run, and only the reference, solved at the first attempt.
        p: Two-sided sign-flip test over task names; of a single name, over its sessions.
    """

    sessions: int
    reference: float
    run: float
    difference: float
    interval: Interval
    won: int
    lost: int
    p: float


def gain(first: Sequence[SessionSummary], other: Sequence[SessionSummary]) -> Gain:
    """``other`` against ``first``, paired by place; both not empty."""
    a, b = [float(s.solved_within(1)) for s in first], [float(s.solved_within(1)) for s in other]
    groups = clusters([s.name for s in first], [s.instance for s in first])
    difference, interval = paired_bootstrap(a, b, seed=SEED, groups=groups)
    won, lost = (sum(x > y for x, y in zip(more, less, strict=True)) for more, less in ((b, a), (a, b)))
    p = sign_flip(a, b, groups)
    return Gain(len(a), statistics.fmean(a), statistics.fmean(b), difference, interval, won, lost, p)


def paired(label: str, reference: str, first: Sequence[SessionSummary], other: Sequence[SessionSummary]) -> list[tuple[str, ...]]:
    """Rows of the paired stream: ``other`` − ``first`` over the same sessions in the same order."""
    rows: list[tuple[str, ...]] = []
    for part, places in halves(len(first)):
        a, b = first[places], other[places]
        if not a:
            continue
        found, (low, high) = gain(a, b), gain(a, b).interval
        names = clusters([s.name for s in a], [s.instance for s in a])
        made, (less, more) = paired_bootstrap([s.attempts for s in a], [s.attempts for s in b], seed=SEED, groups=names)
        points = f"{100 * found.difference:+.1f} ({100 * low:+.1f} … {100 * high:+.1f})"
        per = f"{_ratio(attempts_per_solved(a))} → {_ratio(attempts_per_solved(b))}"
        rows.append(
            (f"{label} − {reference}", part, str(len(a)), points, f"{found.won} / {found.lost}", f"{found.p:.2g}",
             f"{made:+.2f} ({less:+.2f} … {more:+.2f})", per)
        )  # fmt: skip
    return rows


PAIRED_HEADER = (
    "difference",
    "part",
    "sessions",
    "success@1, points",
    "won / lost",
    "p",
    "attempts per session",
    "attempts per solved",
)
PAIRED_NOTE = (
    "Paired by session, in the order of the plan. Points of success@1 and attempts per session: mean difference with its 95 % bootstrap "
    "interval; whole task names are resampled, and flipped for p."
)


def by_name(label: str, first: Sequence[SessionSummary], other: Sequence[SessionSummary]) -> list[tuple[str, ...]]:
    """The second half by task name: success@1 of both, and whether that could be chance."""
    _, places = halves(len(first))[2]
    pairs = list(zip(first[places], other[places], strict=True))
    rows: list[tuple[str, ...]] = []
    for name in sorted({a.name for a, _ in pairs}):
        found = gain([a for a, _ in pairs if a.name == name], [b for a, b in pairs if a.name == name])
        shares = f"{found.reference:.0%}", f"{found.run:.0%}"
        rows.append((label, name, str(found.sessions), *shares, f"{found.won} / {found.lost}", f"{found.p:.2g}"))
    return rows


def by_name_header(reference: str) -> tuple[str, ...]:
    return ("run", "task", "sessions", f"success@1 {reference}", "success@1 run", "won / lost", "p")


BY_NAME_NOTE = "Second half of the stream; p of the exact test by session, not corrected for the number of tasks."


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
