"""The same tasks several times under other sampling seeds (``--repeats``): how much of a result is luck.

Of n sessions at an instance c are solved.  pass@k is the chance that of k sessions drawn without replacement at least one is solved,
1 − C(n−c, k)/C(n, k); pass^k that all of them are, C(c, k)/C(n, k).  Both are means over the instances.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agentlab.results.pages import Section
from agentlab.results.resampling import Interval, bootstrap_mean, clusters


class Repeatable(Protocol):
    """What is needed of a session: :class:`agentlab.results.metrics.SessionSummary`."""

    @property
    def instance(self) -> str: ...
    @property
    def repeat(self) -> int: ...
    @property
    def name(self) -> str: ...
    def solved_within(self, k: int) -> bool: ...


@dataclass(frozen=True)
class Repeats:
    """What the sessions at the same instances came to.

    Attributes:
        repeats: n, sessions at every instance.
        instances: Those of which all n have ended.
        at, hat: pass@k and pass^k for k = 1 … n, each with a 95 % interval that resamples task names.
        each: Share of the instances solved in repeat 1, 2, … n.
        within: Standard deviation that an instance's outcome has between its repeats, averaged over the instances as a variance.
    """

    repeats: int
    instances: int
    at: list[tuple[float, Interval]]
    hat: list[tuple[float, Interval]]
    each: list[float]
    within: float

    @property
    def spread(self) -> float:
        """Standard deviation of a repeat's success between the repeats."""
        return statistics.stdev(self.each)

    def lines(self) -> list[tuple[str, str]]:
        """(name, value) for the final table of a run."""
        n, each = self.repeats, " ".join(f"{share:.1%}" for share in self.each)
        return [
            (f"pass@{n} and pass^{n} of {self.instances} instances", f"{self.at[-1][0]:.1%} and {self.hat[-1][0]:.1%}"),
            ("success of each repeat", f"{each} (standard deviation {100 * self.spread:.1f} points)"),
        ]


def pass_at(n: int, c: int, k: int) -> float:
    """The chance that one of k of n sessions is among the c solved ones."""
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def pass_hat(n: int, c: int, k: int) -> float:
    """The chance that k of n sessions are all among the c solved ones."""
    return math.comb(c, k) / math.comb(n, k)


def repeated(found: Iterable[Repeatable], k: int) -> Repeats | None:
    """Success within ``k`` attempts over repeats; None if no instance was repeated.

    Only instances that all repeats have ended count: otherwise the repeats would be over different tasks.
    """
    by_instance: dict[str, dict[int, Repeatable]] = {}
    for session in found:
        by_instance.setdefault(session.instance, {})[session.repeat] = session
    n = max((len(some) for some in by_instance.values()), default=0)
    whole = [some for some in by_instance.values() if set(some) == set(range(1, n + 1))]
    if n < 2 or not whole:
        return None
    solved = [[some[r].solved_within(k) for r in sorted(some)] for some in whole]  # [instances][n]
    counts, names = [sum(row) for row in solved], clusters([some[min(some)].name for some in whole])

    def mean(values: Sequence[float]) -> tuple[float, Interval]:
        return bootstrap_mean(values, seed=0, groups=names)

    variances = [statistics.variance([float(v) for v in row]) for row in solved]
    return Repeats(
        repeats=n,
        instances=len(whole),
        at=[mean([pass_at(n, c, k) for c in counts]) for k in range(1, n + 1)],
        hat=[mean([pass_hat(n, c, k) for c in counts]) for k in range(1, n + 1)],
        each=[statistics.fmean(float(row[r]) for row in solved) for r in range(n)],
        within=math.sqrt(statistics.fmean(variances)),
    )


def repeats_section(found: Sequence[tuple[str, Repeats]], attempts: int, column: str) -> Section:
    """A table of what was repeated, one line per k and run; without lines if nothing was."""
    lines = []
    for label, r in found:
        for k, ((at, (at_low, at_high)), (hat, (hat_low, hat_high))) in enumerate(zip(r.at, r.hat, strict=True), start=1):
            shares = f"{at:.1%} ({at_low:.0%}–{at_high:.0%})", f"{hat:.1%} ({hat_low:.0%}–{hat_high:.0%})"
            lines.append((label, str(k), *shares, f"{r.each[k - 1]:.1%}", f"{100 * r.spread:.1f}", f"{100 * r.within:.1f}"))
    note = (
        f"Sessions of up to {attempts} attempts, over the instances that all repeats have ended ({_counts(found)}). pass@k: at least "
        "one of k sessions solves the task; pass^k: all of them do. Repeat k: success of that repeat alone. Points: the standard deviation "
        "between repeats, of the whole run's success and of one instance's outcome."
    )
    header = (column, "k", "pass@k", "pass^k", "repeat k", "between repeats, points", "of an instance, points")
    return Section("Repeats", header, lines, note)


def _counts(found: Sequence[tuple[str, Repeats]]) -> str:
    return ", ".join(f"{r.instances}" for _, r in found)
