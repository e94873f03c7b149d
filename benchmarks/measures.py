"""The numbers of a comparison's tables, from its stored outcomes alone.

A method is measured over the instances it has ended, and compared with another one over those that both have ended.  Intervals resample
whole clusters (tasks or families) and p values flip the signs of whole clusters, because instances of one task are alike.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import outcomes
from outcomes import FIRST, Outcome

from agentlab.results.resampling import Interval, bootstrap_mean, clusters, paired_bootstrap, sign_flip


@dataclass(frozen=True)
class Made:
    """A stage of a study: outcomes by method, in the order of the file, and what they were made with."""

    about: dict[str, Any]
    firsts: list[Outcome]
    methods: dict[str, list[Outcome]]

    @property
    def attempts(self) -> int:
        return int(self.about["attempts"])

    @property
    def first_success(self) -> float:
        """Share of the first attempts that were solved."""
        return sum(o.ended == "solved" for o in self.firsts) / len(self.firsts)

    @property
    def everywhere(self) -> list[str]:
        """Methods that run on all tasks of the study."""
        return [name for name in self.methods if not self.partial(name)]

    def partial(self, name: str) -> bool:
        """Whether a method is only for some of the tasks: those with feedback."""
        return bool(self.about["methods"][name].get("only"))


def load(file: Path) -> Made | None:
    """A stage from its files ``<study>-<stage>.jsonl`` and ``.json``; None if it has not been run."""
    found = outcomes.read(file)
    if not found or not file.with_suffix(".json").exists():
        return None
    methods: dict[str, list[Outcome]] = {}
    for one in found:
        methods.setdefault(one.method, []).append(one)
    firsts = methods.pop(FIRST, [])
    return Made(json.loads(file.with_suffix(".json").read_text(encoding="utf-8")), firsts, methods)


def share(made: Sequence[Outcome], k: int) -> tuple[float, Interval]:
    """Solved within k of the failing first attempts, with its interval over clusters."""
    return bootstrap_mean([float(o.within(k)) for o in made], seed=0, groups=clusters([o.name for o in made]))


@dataclass(frozen=True)
class Difference:
    """Method minus reference, of success within k: points in [-1, 1], over ``n`` instances of ``clusters`` clusters."""

    points: float
    interval: Interval
    p: float
    won: int
    lost: int
    n: int
    clusters: int


def difference(reference: Sequence[Outcome], method: Sequence[Outcome], k: int) -> Difference | None:
    """Over the instances that both have ended; None if there is none."""
    there = {o.instance: o for o in reference}
    pairs = [(there[o.instance], o) for o in method if o.instance in there]
    if not pairs:
        return None
    a, b = [float(x.within(k)) for x, _ in pairs], [float(y.within(k)) for _, y in pairs]
    names = [y.name for _, y in pairs]
    groups = clusters(names)
    points, interval = paired_bootstrap(a, b, seed=0, groups=groups)
    won, lost = (sum(x < y for x, y in zip(*both, strict=True)) for both in ((a, b), (b, a)))
    return Difference(points, interval, sign_flip(a, b, groups), won, lost, len(pairs), len(set(groups)))


@dataclass(frozen=True)
class Price:
    """What the retries of a method took, per instance that they solved, up to attempt k; None where it solved none.

    ``forward`` and ``prefill`` are rows of the model's calls.
    """

    attempts: float | None
    forward: float | None
    prefill: float | None
    tokens: float | None


def price(made: Sequence[Outcome], k: int) -> Price:
    """Of attempts 2 … k."""
    solved = sum(o.within(k) for o in made)
    totals = [sum(sum(getattr(o, name)[: k - 1]) for o in made) for name in ("forward", "prefill", "tokens")]
    attempts = sum(min(len(o.forward), k - 1) for o in made)
    return Price(*(total / solved if solved else None for total in (attempts, *totals)))


def cpu_per_solved(made: Made, name: str) -> float | None:
    """CPU seconds per instance solved within all attempts; None where nothing was solved or measured."""
    spent, solved = float(made.about["methods"][name]["cpu_seconds"]), sum(o.ended == "solved" for o in made.methods[name])
    return spent / solved if solved and spent else None


def by_chance(guesses: int, k: int) -> float:
    """Solved within k of the failing first attempts by guessing without replacement among ``guesses`` answers, one of which was wrong."""
    return min(1.0, (k - 1) / (guesses - 1))


def replies(made: Sequence[Outcome]) -> dict[str, float]:
    """Shares of retries that repeat an earlier attempt, and of replies that are not actions; updates made and accepted."""
    retries, acted = sum(len(o.forward) for o in made), sum(sum(o.replies) for o in made)
    updates = [u for o in made for u in o.update if u is not None]
    return {
        "repeats": sum(sum(o.repeats) for o in made) / max(1, retries),
        "unparsable": sum(sum(o.unparsable) for o in made) / max(1, acted),
        "redrawn": sum(sum(o.redrawn) for o in made) / max(1, acted),
        "updates": len(updates),
        "accepted": sum(updates),
        "machinery": sum(o.ended == "machinery" for o in made),
    }
