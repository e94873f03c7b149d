"""What is known after some rounds: the lessons with what became of their readers, the examples, the sessions and their tokens.

Computed from the rounds' files alone, in their order, so that whoever reads the same rounds knows the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from agentlab.disk.files import strict_json
from agentlab.disk.names import digest
from agentlab.experience.directory import ROWS, Directory, Origin
from agentlab.experience.known import (
    READ_BEFORE_RETIRED,
    RETIRED_BELOW,
    Known,
    PastSession,
    SolvedQuestion,
    checked,
    example,
    group_in,
    named,
    take,
)
from agentlab.experience.stored import from_file
from envs.errors import StoreError
from retrospect.relevance import Relevance

if TYPE_CHECKING:
    from torch import Tensor

    from policies.prior.config import PriorConfig
    from policies.prior.step import Rows

POOL = 4
"""Times as many relevant lessons as are shown are looked at, to take those whose readers did best."""
KINDS = {"examples": "examples", "weights": "theta_1"}
"""What a session may be given besides lessons, and where its line says that it was."""


@dataclass(frozen=True)
class State:
    """Everything after some rounds; immutable, so that sessions may read it side by side."""

    rounds: tuple[str, ...] = ()
    lessons: dict[str, Known] = field(default_factory=dict)
    examples: tuple[SolvedQuestion, ...] = ()
    sessions: tuple[PastSession, ...] = ()
    forgotten: frozenset[str] = frozenset()
    gains: tuple[float, ...] = ()
    """Of every session that read lessons, how much better it went than expected."""

    # -- growing ---------------------------------------------------------------------------------------------------------------
    def after(self, directory: Directory, name: str, source: Origin, *, tokens: bool) -> State:
        """This and the round ``name``; ``tokens``: also take the tokens of its attempts, if they are of the model of ``source``.

        Raises:
            StoreError: the round cannot be read.
        """
        try:
            return self._after(directory, name, source, tokens)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise StoreError(f"{directory.round_folder(name)} is corrupt ({what}).", "Restore it, or name another.") from error

    def _after(self, directory: Directory, name: str, source: Origin, tokens: bool) -> State:
        folder = directory.round_folder(name)
        about = directory.whole(name)
        same_model = bool(source.model) and Origin.of(about, folder / "round.json").model == source.model
        rows = from_file(folder / ROWS, directory.folder) if tokens and same_model and (folder / ROWS).exists() else {}
        lines = [checked(line) for line in directory.lines(name, "sessions")]
        known, gains = self._credited(lines)
        for line in directory.lines(name, "lessons"):
            take(known, line, name)
        groups = {line["task"]: group_in(line) for line in lines}
        examples = {one.id: one for one in self.examples}
        for line in directory.lines(name, "examples"):
            one = example(line, groups, name)
            if one is not None and (one.id not in examples or examples[one.id].forgotten(self.forgotten)):
                examples[one.id] = one  # of two runs that ask the same once; of one that was forgotten what was left since
        past = [
            PastSession(
                f"{name}/{line['task']}", line["name"], line["text"], line.get("same", line["text"]), line["solved_at"], group_in(line),
                rows.get(place), frozenset(kind for kind, key in KINDS.items() if line[key]),
            )
            for place, line in enumerate(lines)
        ]  # fmt: skip
        others = next(([one] for one in reversed(self.sessions) if one.rows is not None), [])
        if len({one.rows.hidden.shape[1] for one in (*others, *past) if one.rows is not None}) > 1:
            raise ValueError("its tokens are not of the width that others have")
        return State((*self.rounds, name), known, tuple(examples.values()), (*self.sessions, *past), self.forgotten, gains)

    def _credited(self, lines: Iterable[dict[str, Any]]) -> tuple[dict[str, Known], tuple[float, ...]]:
        """The lessons, and the gains of those who read some, after the sessions of a round, each compared with what was to be expected
        before the round.
        """
        known = dict(self.lessons)
        by_name: dict[str, list[float]] = {}
        for past in self.sessions:
            by_name.setdefault(past.name, []).append(past.value)
        everything, gains = [past.value for past in self.sessions], list(self.gains)
        for line in lines:
            before = by_name.get(line["name"]) or everything
            solved = line["solved_at"]
            gain = (1 / solved if solved else 0.0) - sum(before) / len(before) if before else 0.0
            if line["lessons"] and before:
                gains.append(gain)
            for one in line["lessons"]:
                if one in known:
                    known[one] = replace(known[one], reads=known[one].reads + 1, credit=known[one].credit + gain)
        return known, tuple(gains)

    @property
    def lessons_harm(self) -> bool:
        """Whether those that read lessons, whichever, did worse than expected: by RETIRED_BELOW in the mean, and by two standard errors.

        A policy that cannot read such notes is harmed by every one of them, and would be by every new one.
        """
        n = len(self.gains)
        if n < 2 * READ_BEFORE_RETIRED:
            return False
        mean, error = statistics.fmean(self.gains), statistics.stdev(self.gains) / n**0.5
        return mean <= RETIRED_BELOW and mean + 2 * error < 0

    # -- asking ----------------------------------------------------------------------------------------------------------------
    @property
    def digest(self) -> str:
        """Equal for the same lessons, examples and sessions."""
        lessons = [[one.id, one.support, one.reads, round(one.credit, 9)] for one in self.lessons.values()]
        return digest(strict_json([lessons, [e.id for e in self.examples], [s.task for s in self.sessions]]))

    @cached_property
    def shown_lessons(self) -> list[Known]:
        """Lessons that may be shown."""
        return [
            one for one in self.lessons.values()
            if not one.retired and not one.forgotten(self.forgotten)
        ]  # fmt: skip

    @cached_property
    def _lesson_index(self) -> Relevance:
        return Relevance([f"{one.lesson.when} {one.lesson.text}" for one in self.shown_lessons])

    def relevant_lessons(self, query: str, count: int, task: str = "") -> list[Known]:
        """The most relevant lessons, those whose readers did better first; none that only ``task`` itself has taught."""
        if self.lessons_harm:
            return []
        found = self._lesson_index.best(query, len(self.shown_lessons))
        near = [one for one in found if not self.shown_lessons[one[0]].only_of(task)][: POOL * count]
        best = sorted(near, key=lambda found: -found[1] * (1 + max(-0.9, self.shown_lessons[found[0]].worth)))
        return [self.shown_lessons[place] for place, _ in best[:count]]

    @cached_property
    def shown_examples(self) -> list[SolvedQuestion]:
        """Examples that may be shown."""
        return [one for one in self.examples if not one.forgotten(self.forgotten)]

    @property
    def settled_examples(self) -> set[str]:
        """Ids of examples that need not be left again: they are shown, or were forgotten themselves and not only with their session."""
        return {one.id for one in self.shown_examples} | self.forgotten

    @cached_property
    def _example_index(self) -> Relevance:
        return Relevance([f"{one.name} {one.question}" for one in self.shown_examples])

    def relevant_examples(self, query: str, count: int, group: str | None = None, question: str = "") -> list[SolvedQuestion]:
        """The most relevant examples (of this group), the nearest first; never the question itself with its answer, whatever its name."""
        found = [self.shown_examples[place] for place, _ in self._example_index.best(query, len(self.shown_examples))]
        own = {_flat(query), _flat(question)}
        others = [one for one in found if not own & {_flat(one.question), _flat(f"{one.name} {one.question}")}]
        return [one for one in others if group in (None, one.group)][:count]

    def helps(self, kind: str, group: str, seed: int) -> bool:
        """Whether a session of a task of this group is given ``kind`` (of :data:`KINDS`).

        Thompson sampling (Thompson 1933): of those that had it and those that had not, a success rate is drawn from what their sessions
        make probable (1 for solved at once, 1/k for attempt k), and the greater one decides.
        """
        import numpy as np

        chance = np.random.default_rng(seed)
        rates = []
        for had in (True, False):
            values = [past.value for past in self.sessions if past.group == group and (kind in past.had) == had]
            rates.append(chance.beta(1 + sum(values), 1 + len(values) - sum(values)))
        return bool(rates[0] > rates[1])

    @cached_property
    def _with_rows(self) -> list[PastSession]:
        """The sessions that left tokens, of those that were asked the same the newest: each would vouch for the other."""
        newest: dict[str, PastSession] = {}
        for past in self.sessions:
            if past.rows is not None and not named(past.origin, self.forgotten):
                newest.pop(past.same, None)
                newest[past.same] = past
        return list(newest.values())

    @cached_property
    def common(self) -> Tensor:
        """The mean [d] of all stored hidden states, float64."""
        import torch

        hidden = [past.rows.hidden for past in self._with_rows if past.rows is not None]
        return torch.stack([one.double().sum(0) for one in hidden]).sum(0) / sum(map(len, hidden))

    @cached_property
    def _session_index(self) -> Relevance:
        return Relevance([past.text for past in self._with_rows])

    def tokens_for(self, query: str, config: PriorConfig, group: str | None = None, same: str | None = None) -> list[Rows]:
        """What θ₁ is to be made of for a task like ``query``, one per session, the nearest first (of this group).

        None of a session that was asked the same: ``same``, as :func:`asked` has it, the query if None.
        """
        mine = query.strip() if same is None else same
        found = [self._with_rows[place] for place, _ in self._session_index.best(query, len(self._with_rows))]
        near = [past for past in found if past.same.strip() != mine and group in (None, past.group)][: config.neighbours]
        are_near = {id(past) for past in near}
        others = [past for past in reversed(self._with_rows) if id(past) not in are_near and past.same.strip() != mine]
        pool = {"near": near, "both": near + others}.get(config.scope, [])
        if config.scope == "global":
            pool = [past for past in reversed(self._with_rows) if past.same.strip() != mine]
        if config.rows == "corrected":
            pool = [past for past in pool if past.solved_at is not None and past.solved_at > 1]
        return [past.rows for past in pool if past.rows is not None]


def _flat(text: str) -> str:
    return " ".join(text.split())
