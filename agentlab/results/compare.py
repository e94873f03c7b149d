"""Runs side by side, paired by task: what differs in their settings, and whether their results differ by more than chance.

Instances of one task are alike, so intervals and p values take whole task names: the intervals resample them, the p is of a sign-flip
test over them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agentlab.disk.runs import Run
from agentlab.disk.store import CHANGES_NO_RESULT, differing
from agentlab.results import figures, stream
from agentlab.results.metrics import SessionSummary, correction_uplift, ended_sessions, success_bands
from agentlab.results.pages import Section, write_pages
from agentlab.results.repeats import repeated, repeats_section
from agentlab.results.resampling import Interval, clusters, paired_bootstrap, sign_flip
from envs.errors import UsageError

SHOWN = 8
"""Task names given in a message."""


@dataclass(frozen=True)
class Contrast:
    """Solved within ``k``: another run minus the first one, over the same sessions.

    Attributes:
        difference: Of the shares, with its 95 % bootstrap interval over task names.
        only_first, only_other: Sessions that one of the two solved.
        p: Two-sided sign-flip test over task names.
    """

    k: int
    difference: float
    interval: Interval
    only_first: int
    only_other: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """Runs over the sessions that all of them have ended.

    Attributes:
        labels: Short names of the runs, different from each other.
        found: Per run, the sessions, paired by place.
        attempts: Largest k compared.
        settings: Per run but the first, the settings that differ from the first one's.
        contrasts: Per run but the first, one per k.
    """

    labels: list[str]
    found: list[list[SessionSummary]]
    attempts: int
    settings: list[list[str]]
    contrasts: list[list[Contrast]]
    notes: list[str]
    stream: bool = False
    """One of the runs has experience, and all have the same order of sessions."""

    def sections(self) -> list[Section]:
        """Tables of the comparison."""
        return [_success(self), _repeats(self), _contrasts(self), *_stream(self), _settings(self), _one_sided(self)]

    def write(self, folder: Path) -> None:
        """Write ``compare.md``, ``compare.html`` and the figure into ``folder``.

        Raises:
            StoreError: it cannot be written.
        """
        bands = {label: success_bands(found, self.attempts) for label, found in zip(self.labels, self.found, strict=True)}
        draw = functools.partial(figures.success_curve, bands, title="Solved within k attempts")
        over = dict(zip(self.labels, self.found, strict=True))
        seconds = functools.partial(figures.success_over_seconds, over, title="Solved within s seconds")
        drawn = {"success.png": draw, "seconds.png": seconds}
        write_pages(folder, "compare", self.title, [s for s in self.sections() if s.rows], drawn)

    @property
    def title(self) -> str:
        return " · ".join(self.labels)


def compare(runs: Sequence[Run], *, force: bool = False, seed: int = 0) -> Comparison:
    """Compare runs, each with the first.

    Args:
        runs: Two or more.
        force: Also compare runs over different tasks or with different numbers of attempts, over what they share.
        seed: Of the bootstrap.

    Raises:
        UsageError: fewer than two runs, nothing in common, or different tasks, suites or attempts without ``force``.
    """
    if len(runs) < 2:
        raise UsageError("A comparison needs two runs.", "agentlab compare RUN_A RUN_B")
    attempts = min(run.attempts for run in runs)
    # Of a longer run only the attempts that all of them have: uplift and seconds would credit it with the others.
    ended = [{s.task: s for s in ended_sessions(run.rows, within=attempts)} for run in runs]
    labels = _labels(runs)
    obstacles = _obstacles(runs, labels, ended)
    if obstacles and not force:
        raise UsageError(
            f"These runs cannot be paired: {' '.join(obstacles)}", "Finish them, or use --force to compare what they share."
        )
    shared = [task for task in ended[0] if all(task in sessions for sessions in ended)]
    if not shared:
        raise UsageError("These runs have no session in common that has ended.", "Runs are paired by task and instance seed.")
    found = [[sessions[task] for task in shared] for sessions in ended]
    groups = clusters([s.name for s in found[0]], [s.instance for s in found[0]])
    contrasts = [[_contrast(found[0], other, k, groups, seed) for k in range(1, attempts + 1)] for other in found[1:]]
    settings = [differing(runs[0].config, run.config, free=CHANGES_NO_RESULT) for run in runs[1:]]
    notes = [f"{len(shared)} sessions that all runs have ended.", *obstacles, *_same_start(runs, shared)]
    orders = {tuple(task for task in sessions if task in set(shared)) for sessions in ended}
    learns = any("experience" in run.config for run in runs)
    if learns and len(orders) > 1:
        notes.append("One of them has experience, and they are not in the same order: they are not compared as a stream.")
    return Comparison(labels, found, attempts, settings, contrasts, notes, stream=learns and len(orders) == 1)


def _labels(runs: Sequence[Run]) -> list[str]:
    names = [run.folder.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) for run in runs]
    return [name if names.count(name) == 1 else f"{name} #{i}" for i, name in enumerate(names, start=1)]


def _obstacles(runs: Sequence[Run], labels: Sequence[str], ended: Sequence[dict[str, SessionSummary]]) -> list[str]:
    """What the runs do not have in common with the first, in words."""
    found = []
    for label, run, sessions in list(zip(labels, runs, ended, strict=True))[1:]:
        for key in ("suite", "attempts"):
            first, other = runs[0].config.get(key), run.config.get(key)
            if first != other:
                found.append(f"{key} is {first} in {labels[0]} and {other} in {label}.")
        for here, there, name, absent in ((ended[0], sessions, labels[0], label), (sessions, ended[0], label, labels[0])):
            extra = sorted(here.keys() - there.keys())
            if extra:
                some = ", ".join(extra[:SHOWN]) + (" …" if len(extra) > SHOWN else "")
                found.append(f"{len(extra)} sessions ended in {name} and not in {absent} ({some}).")
    return found


def _contrast(
    first: Sequence[SessionSummary], other: Sequence[SessionSummary], k: int, groups: Sequence[str], seed: int
) -> Contrast:
    a, b = [s.solved_within(k) for s in first], [s.solved_within(k) for s in other]
    difference, interval = paired_bootstrap([float(v) for v in a], [float(v) for v in b], seed=seed, groups=groups)
    only_first, only_other = (sum(x and not y for x, y in zip(*pair, strict=True)) for pair in ((a, b), (b, a)))
    p = sign_flip([float(v) for v in a], [float(v) for v in b], groups, seed=seed)
    return Contrast(k, difference, interval, only_first, only_other, p)


def _same_start(runs: Sequence[Run], shared: Sequence[str]) -> list[str]:
    """In how many sessions the first attempts were the same, action by action: differences come from adaptation only there."""
    firsts = [{r.task: r.actions_hash for r in run.rows if r.attempt == 1 and r.graded} for run in runs]
    same = sum(len(made := {f.get(task) for f in firsts}) == 1 and None not in made for task in shared)
    return [f"The first attempts were the same, action by action, in {same} of them."]


# -- tables ------------------------------------------------------------------------------------------------------------------------
def _success(c: Comparison) -> Section:
    rows = []
    for label, found in zip(c.labels, c.found, strict=True):
        shares = [f"{share:.1%} ({low:.0%}–{high:.0%})" for share, (low, high) in success_bands(found, c.attempts)]
        uplift = correction_uplift(found)
        rows.append((label, *shares, "–" if uplift is None else f"{uplift:.1%}", str(sum(s.infrastructure for s in found))))
    header = ("run", *(f"success@{k}" for k in range(1, c.attempts + 1)), "uplift", "ended by machinery")
    return Section("Runs", header, rows, " ".join(c.notes), ("success.png", "seconds.png"))


def _repeats(c: Comparison) -> Section:
    """Of the runs with several sessions per instance, how much is luck."""
    each = [(label, repeated(found, c.attempts)) for label, found in zip(c.labels, c.found, strict=True)]
    return repeats_section([(label, r) for label, r in each if r is not None], c.attempts, "run")


def _contrasts(c: Comparison) -> Section:
    rows = []
    for label, contrasts in zip(c.labels[1:], c.contrasts, strict=True):
        for x in contrasts:
            low, high = x.interval
            points = f"{100 * x.difference:+.1f}", f"{100 * low:+.1f} … {100 * high:+.1f}"
            rows.append((f"{label} − {c.labels[0]}", str(x.k), *points, str(x.only_first), str(x.only_other), f"{x.p:.2g}"))
    tasks = len({s.name for s in c.found[0]})
    over = f"the {tasks} task names, because instances of one task are alike" if tasks > 1 else "the sessions of the one task"
    note = (
        f"Difference of success@k in percentage points, paired by session; intervals and p (sign-flip test) are over {over}; not "
        "corrected for several k."
    )
    header = ("difference", "k", "points", "95 % interval", f"only {c.labels[0]}", "only the other", "p")
    return Section("Paired differences", header, rows, note)


def _stream(c: Comparison) -> list[Section]:
    """What experience changes over the stream."""
    if not c.stream:
        return []
    others = list(zip(c.labels[1:], c.found[1:], strict=True))
    rows = [row for label, other in others for row in stream.paired(label, c.labels[0], c.found[0], other)]
    names = [row for label, other in others for row in stream.by_name(label, c.found[0], other)]
    return [
        Section("Stream", stream.PAIRED_HEADER, rows, stream.PAIRED_NOTE),
        Section("Stream by task", stream.by_name_header(c.labels[0]), names, stream.BY_NAME_NOTE),
    ]


def _settings(c: Comparison) -> Section:
    pairs = zip(c.labels[1:], c.settings, strict=True)
    rows = [(label, line) for label, lines in pairs for line in (lines or ["the same settings"])]
    return Section("Settings that differ", ("run", f"{c.labels[0]} -> run"), rows)


def _one_sided(c: Comparison) -> Section:
    """Sessions that the first run and another one did not both solve (or both fail)."""
    rows = []
    for label, other in zip(c.labels[1:], c.found[1:], strict=True):
        for a, b in zip(c.found[0], other, strict=True):
            if a.solved_within(c.attempts) != b.solved_within(c.attempts):
                rows.append((label, a.task, _solved(a, c.attempts), _solved(b, c.attempts)))
    return Section("Sessions solved by one of the two", ("run", "session", c.labels[0], "run solved it at"), rows)


def _solved(session: SessionSummary, attempts: int) -> str:
    if session.infrastructure:
        return "ended by machinery"
    return f"attempt {session.solved_at}" if session.solved_within(attempts) else "not solved"
