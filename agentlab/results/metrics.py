"""The numbers of the papers' tables, as pure functions over the rows of ``results.jsonl``.

A *session* is one task and its attempts.  A session that the machinery ended stays in every denominator, as a category of its
own: it counts as unsolved, never as a failed attempt of the agent.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from agentlab.disk.row import SPLIT, Row
from agentlab.results.repeats import Repeats, repeated
from agentlab.results.resampling import Interval, bootstrap_mean, clusters


@dataclass(frozen=True)
class SessionSummary:
    """One task as the metrics see it.

    Attributes:
        solved_at: 1-based attempt that solved it, or None.
        attempts: Graded attempts made.
        infrastructure: The machinery ended the session.
        failed_first: Attempt 1 was graded and failed.
        feasible: The task can be done; of the others the right answer is to say that they cannot.
        first_score: The benchmark's score of attempt 1, which may be partial; 0 where it was never graded.
        first_graded: Attempt 1 was graded.
        seconds: Of all its attempts; ``solved_seconds``: up to the end of the one that solved it, or None.
        instance: The task instance, which sessions that repeat it share; ``repeat``: which of them it is, from 1.
    """

    task: str
    name: str
    domain: str
    solved_at: int | None
    attempts: int
    infrastructure: bool
    failed_first: bool
    feasible: bool = True
    first_score: float = 0.0
    first_graded: bool = True
    instance: str = ""
    repeat: int = 1
    seconds: float = 0.0
    solved_seconds: float | None = None

    def solved_within(self, k: int) -> bool:
        return self.solved_at is not None and self.solved_at <= k


@dataclass(frozen=True)
class Summary:
    """The final table of a run; times are seconds, memory is MB, shares lie in [0, 1]; None where nothing can be divided by."""

    sessions: int
    finished: int
    success_at: list[float]
    newly_solved: list[int]
    solved: int
    failed_first: int
    correction_uplift: float | None
    points_gained: float | None
    average_attempts: float | None
    attempts_per_solved: float | None
    seconds_per_attempt: dict[str, float]
    seconds_per_session: float | None
    exact_repeats: float | None
    unparsable: float | None
    unparsable_draws: float | None
    infrastructure_sessions: int
    infrastructure_failures: int
    updates: int
    updates_accepted: int
    first_score: float | None
    graded_first: int
    graded_first_score: float | None
    feasible_sessions: int
    feasible_success_at: list[float]
    feasible_first_score: float | None
    repeats: Repeats | None
    hidden_seconds: float | None = None
    memory: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def sessions(rows: Iterable[Row]) -> list[SessionSummary]:
    """Group rows by task, in order of first appearance; of two rows of one attempt the later one counts."""
    grouped: dict[str, dict[int, Row]] = {}
    for row in rows:
        grouped.setdefault(row.task, {})[row.attempt] = row
    found = []
    for task, by_attempt in grouped.items():
        ordered = [by_attempt[t] for t in sorted(by_attempt)]
        graded = [r for r in ordered if r.graded]
        solved = next((r.attempt for r in graded if r.success), None)
        first = by_attempt.get(1)
        until = [r.seconds.total for r in ordered if solved is not None and r.attempt <= solved]
        found.append(
            SessionSummary(
                task=task,
                name=ordered[0].name,
                domain=ordered[0].domain,
                solved_at=solved,
                attempts=len(graded),
                infrastructure=not ordered[-1].graded,
                failed_first=first is not None and first.graded and not first.success,
                feasible=ordered[0].feasible,
                first_score=(first.score if first is not None else None) or 0.0,
                first_graded=first is not None and first.graded,
                instance=f"{ordered[0].name}_{ordered[0].seed}",
                repeat=ordered[0].repeat,
                seconds=sum(r.seconds.total for r in ordered),
                solved_seconds=sum(until) if until else None,
            )
        )
    return found


def ended_sessions(rows: Sequence[Row], *, within: int | None = None) -> list[SessionSummary]:
    """The sessions that will make no further attempt: every share is taken over these.

    Args:
        within: Count only so many attempts of each, as if the run had allowed no more.
    """
    ended = {r.task for r in rows if r.session_over}
    return [s for s in sessions(r for r in rows if within is None or r.attempt <= within) if s.task in ended]


def success_at(found: Sequence[SessionSummary], k: int) -> float:
    """Share of sessions solved at any attempt <= k (accuracy@k)."""
    return sum(s.solved_within(k) for s in found) / len(found) if found else 0.0


def correction_uplift(found: Sequence[SessionSummary]) -> float | None:
    """Solved later / failed at attempt 1 (ROSA2 Table 2); None if nothing failed at attempt 1."""
    failed = [s for s in found if s.failed_first]
    return sum(s.solved_at is not None for s in failed) / len(failed) if failed else None


def points_gained(found: Sequence[SessionSummary], attempts: int) -> float | None:
    """success@attempts − success@1: the other way to say what the later attempts are worth; None without sessions."""
    return success_at(found, attempts) - success_at(found, 1) if found else None


def solved_by_seconds(found: Sequence[SessionSummary], at: Sequence[float]) -> list[float]:
    """Share of the sessions that were solved within each number of seconds of their own (attempts, learning and all)."""
    return [sum(s.solved_seconds is not None and s.solved_seconds <= t for s in found) / len(found) for t in at] if found else []


def exact_repeats(rows: Iterable[Row]) -> float | None:
    """Share of retries whose actions equal, one by one, those of an earlier attempt at the same task."""
    seen: dict[str, set[str]] = {}
    retries = repeats = 0
    for row in rows:
        if not row.graded:
            continue
        before = seen.setdefault(row.task, set())
        if before:
            retries += 1
            repeats += row.actions_hash in before
        before.add(row.actions_hash)
    return repeats / retries if retries else None


def summarize(rows: Sequence[Row], *, attempts: int, planned: int | None = None) -> Summary:
    """Everything the final table shows.

    Args:
        rows: Lines of ``results.jsonl``, in the order of a session's attempts.
        attempts: T_max of the run.
        planned: Sessions the run was to make, if more than have begun; success shares are over the sessions that have ended.
    """
    done = ended_sessions(rows)
    graded = [r for r in rows if r.graded]
    steps = sum(r.steps for r in graded)
    solved = [s for s in done if s.solved_at is not None]
    counted = [s for s in done if not s.infrastructure]
    learned = [r for r in graded if r.update is not None]
    updates = [r.update for r in learned if r.update is not None]
    feasible = [s for s in done if s.feasible]
    return Summary(
        sessions=max(planned or 0, len(done)),
        finished=len(done),
        success_at=[success_at(done, k) for k in range(1, attempts + 1)],
        newly_solved=[sum(s.solved_at == k for s in done) for k in range(1, attempts + 1)],
        solved=len(solved),
        failed_first=sum(s.failed_first for s in done),
        correction_uplift=correction_uplift(done),
        points_gained=points_gained(done, attempts),
        average_attempts=statistics.fmean(s.attempts for s in counted) if counted else None,
        attempts_per_solved=sum(s.attempts for s in counted) / len(solved) if solved else None,
        seconds_per_attempt={part: _mean_seconds(graded, part) for part in SPLIT},
        seconds_per_session=statistics.fmean(s.seconds for s in done) if done else None,
        exact_repeats=exact_repeats(rows),
        unparsable=sum(r.unparsable for r in graded) / steps if steps else None,
        unparsable_draws=unparsable_draws(graded),
        infrastructure_sessions=sum(s.infrastructure for s in done),
        infrastructure_failures=sum(len(r.infrastructure) for r in rows),
        updates=len(updates),
        updates_accepted=sum(u.accepted for u in updates),
        first_score=_mean_score(done),
        graded_first=sum(s.first_graded for s in done),
        graded_first_score=graded_mean(done),
        feasible_sessions=len(feasible),
        feasible_success_at=[success_at(feasible, k) for k in range(1, attempts + 1)],
        feasible_first_score=_mean_score(feasible),
        repeats=repeated(done, attempts),
        hidden_seconds=statistics.fmean(r.hidden_seconds for r in learned) if learned else None,
        memory=peak_memory(rows),
    )


def _mean_score(found: Sequence[SessionSummary]) -> float | None:
    """Mean score of attempt 1: what OSWorld's tables call the success rate; sessions that the machinery ended count as 0."""
    return statistics.fmean(s.first_score for s in found) if found else None


def graded_mean(found: Sequence[SessionSummary]) -> float | None:
    """Mean score of attempt 1 as AndroidWorld's runner counts (``suite_utils.process_episodes``): a trial that could not be run is left
    out, and the mean is over task names, each the mean of its instances.
    """
    by_name: dict[str, list[float]] = {}
    for session in found:
        if session.first_graded:
            by_name.setdefault(session.name, []).append(session.first_score)
    return statistics.fmean(statistics.fmean(scores) for scores in by_name.values()) if by_name else None


def unparsable_draws(rows: Iterable[Row]) -> float | None:
    """Share of the drawn replies that were not actions: those acted on and those drawn again (``sampling.no_repeat``) together."""
    drawn = [(r.unparsable + r.redrawn_unparsable, r.steps + r.redrawn) for r in rows]
    total = sum(draws for _, draws in drawn)
    return sum(bad for bad, _ in drawn) / total if total else None


def peak_memory(rows: Iterable[Row]) -> dict[str, float]:
    """Highest value of every memory figure, in MB."""
    peak: dict[str, float] = {}
    for row in rows:
        for name, value in row.memory.items():
            peak[name] = max(peak.get(name, 0.0), value)
    return peak


def _mean_seconds(rows: Sequence[Row], part: str) -> float:
    return statistics.fmean(getattr(r.seconds, part) for r in rows) if rows else 0.0


def success_bands(found: Sequence[SessionSummary], attempts: int, *, seed: int = 0) -> list[tuple[float, Interval]]:
    """success@1 … success@attempts, each with its 95 % bootstrap interval; (0, (0, 1)) without sessions.

    Whole task names are resampled, all their instances and repeats together: they are alike.  (Of one task, its sessions are.)
    """
    if not found:
        return [(0.0, (0.0, 1.0))] * attempts
    names = clusters([s.name for s in found], [s.instance for s in found])
    return [bootstrap_mean([float(s.solved_within(k)) for s in found], seed=seed, groups=names) for k in range(1, attempts + 1)]
