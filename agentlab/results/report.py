"""What a run came to: one list of sections, printed in the terminal, as Markdown and as a page (:mod:`agentlab.results.pages`)."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from agentlab.disk.given import read_given
from agentlab.disk.names import folder_name
from agentlab.disk.row import SPLIT, Row
from agentlab.disk.runs import Run
from agentlab.results import figures, stream
from agentlab.results.judged import judge_section
from agentlab.results.metrics import (
    SessionSummary,
    Summary,
    correction_uplift,
    ended_sessions,
    solved_by_seconds,
    success_at,
    success_bands,
    summarize,
)
from agentlab.results.pages import Section, write_pages
from agentlab.results.repeats import repeated, repeats_section
from agentlab.results.tables import TerminalTable

Line = tuple[str, str]


@dataclass(frozen=True)
class Report:
    """A run's sections and the figures that go with them, by file name."""

    title: str
    sections: list[Section]
    figures: dict[str, Callable[[Path], None]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``report.md``, ``report.html`` (which holds its figures) and the figures into ``folder``.

        Raises:
            StoreError: it cannot be written.
        """
        write_pages(folder, "report", self.title, self.sections, self.figures)


def make_report(run: Run, strips: int = 0) -> Report:
    """The report of a run, finished or not, with pictures of ``strips`` sessions."""
    found, rows = ended_sessions(run.rows), run.rows
    shown, pictures = _strips(run, found, strips)
    sections = [
        Section("Summary", ("metric", "value"), summary_lines(summarize(rows, attempts=run.attempts))),
        _success(found, run.attempts),
        _over_seconds(found),
        _repeats(found, run.attempts),
        _time(rows, run.attempts),
        groups("Domains", "domain", found, run.attempts, lambda s: s.domain or "–"),
        groups("Tasks", "task", found, run.attempts, lambda s: s.name),
        _updates(rows),
        _words(rows),
        judge_section(rows, _threshold(run)),
        _experience(run, found),
        failures_section(rows),
        shown,
        Section("Could not be read", ("what",), [(problem,) for problem in run.problems]),
    ]
    drawn: dict[str, Callable[[Path], None]] = {}
    if found:
        bands, newly = success_bands(found, run.attempts), summarize(rows, attempts=run.attempts).newly_solved
        seconds = seconds_by_attempt(rows, run.attempts)
        drawn = {
            "success.png": partial(figures.success_curve, {run.title: bands}, title="Solved within k attempts"),
            "seconds.png": partial(figures.success_over_seconds, {run.title: found}, title="Solved within s seconds"),
            "newly_solved.png": partial(figures.newly_solved_bars, newly, title="Sessions solved at each attempt"),
            "time.png": partial(figures.time_split_bar, seconds, title="Where time goes"),
        }
    return Report(run.title, [s for s in sections if s.rows], drawn | pictures)


def _strips(run: Run, found: Sequence[SessionSummary], count: int) -> tuple[Section, dict[str, Callable[[Path], None]]]:
    """Up to ``count`` sessions, and their pictures: first those solved after a failure, then in the order of the run."""
    chosen = sorted(found, key=lambda s: not (s.failed_first and s.solved_at is not None))[:count]
    drawn: dict[str, Callable[[Path], None]] = {
        f"session_{folder_name(s.task)}.png": partial(figures.attempt_strip, run.folder, folder_name(s.task)) for s in chosen
    }
    lines = [(s.task, str(s.solved_at) if s.solved_at is not None else "–") for s in chosen]
    note = "A row per attempt, a column per step: guidance, the action on the screen, thought and action, and at the end reward and update."
    return Section("Sessions", ("session", "solved at attempt"), lines, note, tuple(drawn)), drawn


# -- sections ----------------------------------------------------------------------------------------------------------------------
def summary_lines(summary: Summary) -> list[Line]:
    """(name, value) of everything the final table shows, in order."""
    unfinished = summary.sessions - summary.finished
    lines = [("sessions", f"{summary.finished}" + (f" of {summary.sessions} ({unfinished} not finished)" if unfinished else ""))]
    lines += [(f"success@{k}", f"{share:.1%}") for k, share in enumerate(summary.success_at, start=1)]
    if summary.graded_first < summary.finished:
        without = f"{_share(summary.graded_first_score)} of {summary.graded_first} (above, the other "
        without += f"{summary.finished - summary.graded_first} count as unsolved)"
        lines.append(("mean score at attempt 1 where it could be run (AndroidWorld's own count)", without))
    if summary.feasible_sessions < summary.finished:
        feasible = " ".join(f"{share:.1%}" for share in summary.feasible_success_at)
        lines.append((f"success@1 … on the {summary.feasible_sessions} feasible tasks", feasible))
    if (
        summary.first_score is not None and abs(summary.first_score - summary.success_at[0]) > 1e-9
    ):  # the benchmark gives part marks
        lines.append(
            ("mean score at attempt 1", f"{summary.first_score:.1%} (feasible tasks: {_share(summary.feasible_first_score)})")
        )
    if summary.repeats is not None:
        lines += summary.repeats.lines()
    lines.append(("newly solved per attempt", " ".join(str(n) for n in summary.newly_solved)))
    lines.append(("correction uplift", _share(summary.correction_uplift) + f" of {summary.failed_first} failed at attempt 1"))
    if summary.points_gained is not None and len(summary.success_at) > 1:
        lines.append(("gained over attempt 1", f"{100 * summary.points_gained:+.1f} points"))
    lines.append(("average attempts", _number(summary.average_attempts)))
    lines.append(("attempts per solved task", _number(summary.attempts_per_solved)))
    lines.append(("exact repeats among retries", _share(summary.exact_repeats)))
    lines.append(("unparsable replies", f"{_share(summary.unparsable)} ({_share(summary.unparsable_draws)} of all draws)"))
    if summary.updates:
        lines.append(("weight updates accepted", f"{summary.updates_accepted} of {summary.updates}"))
    lines += [(f"seconds per attempt, {part}", f"{summary.seconds_per_attempt[part]:.3f}") for part in SPLIT]
    if summary.hidden_seconds:
        lines.append(("seconds per update, hidden", f"{summary.hidden_seconds:.3f} (beside reset and prompt; not in the above)"))
    lines.append(("seconds per session", _number(summary.seconds_per_session)))
    lines += [(f"peak memory, {name.replace('_', ' ')}", f"{mb:,.0f} MB") for name, mb in sorted(summary.memory.items())]
    lines.append(
        ("machinery failures", f"{summary.infrastructure_failures} (sessions ended by them: {summary.infrastructure_sessions})")
    )
    return lines


def _success(found: Sequence[SessionSummary], attempts: int) -> Section:
    bands = success_bands(found, attempts)
    rows = [
        (str(k), f"{share:.1%}", f"{low:.1%} – {high:.1%}", str(sum(s.solved_at == k for s in found)))
        for k, (share, (low, high)) in enumerate(bands, start=1)
    ]
    note = "Shares are over all sessions that have ended; intervals are 95 % bootstrap intervals that resample task names."
    header = ("k", "success@k", "95 % interval", "newly solved")
    return Section("Success", header, rows if found else [], note, ("success.png", "newly_solved.png"))


def _over_seconds(found: Sequence[SessionSummary]) -> Section:
    """Accuracy over time (ROSA Figure 6)."""
    longest = max((s.seconds for s in found), default=0.0)
    at = [longest / 2**n for n in reversed(range(6))]
    shares = solved_by_seconds(found, at)
    lines = [(f"{t:.2f}", f"{share:.1%}") for t, share in zip(at, shares, strict=False)] if longest else []
    note = "Seconds of a session, learning included; the last row is the longest session."
    return Section("Success over seconds", ("seconds", "solved within"), lines, note, ("seconds.png",))


def _repeats(found: Sequence[SessionSummary], attempts: int) -> Section:
    """How much of the result is luck, where instances were repeated."""
    r = repeated(found, attempts)
    return repeats_section([] if r is None else [("all", r)], attempts, "sessions")


def seconds_by_attempt(rows: Iterable[Row], attempts: int) -> dict[str, list[float]]:
    """Mean seconds per part, at attempt 1, 2, …, over the graded attempts; 0 where none was made."""
    by_number = _by_attempt(rows, attempts, lambda r: r)
    return {part: [_mean([getattr(r.seconds, part) for r in made]) or 0.0 for made in by_number] for part in SPLIT}


def _by_attempt(rows: Iterable[Row], attempts: int, column: Callable[[Row], Any]) -> list[list[Any]]:
    """What ``column`` gives for the graded rows, one list per attempt number; None is left out."""
    graded = [r for r in rows if r.graded]
    return [[value for r in graded if r.attempt == k and (value := column(r)) is not None] for k in range(1, attempts + 1)]


def _time(rows: Iterable[Row], attempts: int) -> Section:
    by_part = seconds_by_attempt(rows, attempts)
    made = [len(found) for found in _by_attempt(rows, attempts, lambda r: r)]
    lines = [(str(k), str(made[k - 1]), *(f"{by_part[part][k - 1]:.3f}" for part in SPLIT)) for k in range(1, attempts + 1)]
    return Section(
        "Time",
        ("attempt", "made", *SPLIT),
        [line for line, n in zip(lines, made, strict=True) if n],
        "Mean seconds per graded attempt.",
        ("time.png",),
    )


def groups(
    title: str, column: str, found: Sequence[SessionSummary], attempts: int, key: Callable[[SessionSummary], str]
) -> Section:
    """Success by group, e.g. by domain or by task name."""
    last = (f"success@{attempts}",) if attempts > 1 else ()
    lines = []
    for name in sorted({key(s) for s in found}):
        group = [s for s in found if key(s) == name]
        later = (f"{success_at(group, attempts):.0%}",) if last else ()
        broken = sum(s.infrastructure for s in group)
        lines.append((name, str(len(group)), f"{success_at(group, 1):.0%}", *later, _share(correction_uplift(group)), str(broken)))
    return Section(title, (column, "sessions", "success@1", *last, "uplift", "ended by machinery"), lines)


def _updates(rows: Iterable[Row]) -> Section:
    """Spread of every number that the weight updates recorded."""
    updates = [r.update for r in rows if r.update is not None]
    recorded = [{"seconds": u.seconds, **u.numbers} for u in updates]
    names = dict.fromkeys(name for numbers in recorded for name, value in numbers.items() if _is_number(value))
    lines = []
    for name in names:
        values = [float(numbers[name]) for numbers in recorded if _is_number(numbers.get(name))]
        spread = (statistics.fmean(values), statistics.median(values), min(values), max(values))
        lines.append((name, str(len(values)), *(f"{v:.4g}" for v in spread)))
    accepted = sum(u.accepted for u in updates)
    reasons = Counter(str(u.error or u.numbers.get("reason")) for u in updates if not u.accepted)
    note = f"{accepted} of {len(updates)} updates were accepted."
    note += "".join(f" Not accepted, {n} times: {reason}." for reason, n in reasons.most_common(5))
    return Section("Weight updates", ("number", "updates", "mean", "median", "least", "greatest"), lines, note)


def _words(rows: Iterable[Row]) -> Section:
    words = [r.words for r in rows if r.words is not None]
    lines = []
    for name in ("distance", "characters", "seconds", "requests", "tokens", "cost"):
        values = [float(getattr(w, name)) for w in words]
        if values:
            lines.append((name, f"{statistics.fmean(values):.4g}", f"{sum(values):.4g}"))
    errors = Counter(w.error for w in words if w.error)
    note = f"{len(words)} reflections." + "".join(f" Failed, {n} times: {error}" for error, n in errors.most_common(5))
    return Section("Words", ("number", "mean", "total"), lines, note)


def _threshold(run: Run) -> float:
    """Score from which the grader finds an attempt right."""
    value = run.config.get("success_threshold")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 1.0


def _experience(run: Run, found: Sequence[SessionSummary]) -> Section:
    notes = {s.task: read_given(run.folder / "sessions" / folder_name(s.task)) for s in found}
    return stream.of_run(found, {task: note for task, note in notes.items() if note is not None})


def failures_section(rows: Iterable[Row]) -> Section:
    """What broke, by component: how often, in how many sessions, and what it last said."""
    broken = [(r.task, failure) for r in rows for failure in r.infrastructure]
    lines = []
    for component, count in Counter(failure.component for _, failure in broken).most_common():
        these = [(task, failure.message) for task, failure in broken if failure.component == component]
        lines.append((component, str(count), str(len({task for task, _ in these})), these[-1][1]))
    return Section("Failures of the machinery", ("component", "failures", "sessions", "last message"), lines)


def summary_table(summary: Summary, title: str) -> TerminalTable:
    """The final table of a run, for the terminal."""
    return TerminalTable(Section(title, ("metric", "value"), summary_lines(summary)), show_header=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
