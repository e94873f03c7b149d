"""What is known after some rounds: the lessons with what became of their readers, the examples, the sessions and their tokens.

Computed from the rounds' files alone, in their order, so that whoever reads the same rounds knows the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from agentlab.disk.files import strict_json
from agentlab.disk.names import digest
from agentlab.experience.directory import ROWS, Directory, Origin
from agentlab.experience.stored import from_file
from envs.errors import StoreError
from retrospect import lessons as words
from retrospect.lessons import Lesson
from retrospect.relevance import Relevance
from retrospect.sanitize import carries_orders, clean_line

if TYPE_CHECKING:
    from torch import Tensor

    from policies.prior.config import PriorConfig
    from policies.prior.step import Rows

READ_BEFORE_RETIRED = 4
"""A lesson is retired at the earliest after this many sessions have read it …"""
RETIRED_BELOW = -0.1
"""… if these did worse than expected by this much in the mean (1: solved at once, 1/k: at attempt k, 0: not)."""
POOL = 4
"""Times as many relevant lessons as are shown are looked at, to take those whose readers did best."""
KINDS = {"examples": "examples", "weights": "theta_1"}
"""What a session may be given besides lessons, and where its line says that it was."""
SAME_QUESTION = 8
"""Places kept free for the task itself, where it was met before (repeats, another run): it is not to be shown its own answer."""


@dataclass(frozen=True)
class Known:
    """A lesson and what became of it.

    Attributes:
        task: The session that it comes from.
        support: Sessions that taught it.
        reads: Sessions that read it.
        credit: Sum over these of how much better they went than expected.
    """

    lesson: Lesson
    task: str
    support: int = 1
    reads: int = 0
    credit: float = 0.0

    @property
    def id(self) -> str:
        return self.lesson.id

    @property
    def worth(self) -> float:
        """Mean credit; of a lesson that few have read, near 0."""
        return self.credit / (self.reads + 2)

    @property
    def retired(self) -> bool:
        return self.reads >= READ_BEFORE_RETIRED and self.credit / self.reads <= RETIRED_BELOW


@dataclass(frozen=True)
class SolvedQuestion:
    """A solved question.  ``group``: see :func:`group_of`."""

    id: str
    task: str
    name: str
    question: str
    reply: str
    group: str


@dataclass(frozen=True)
class PastSession:
    """A session of an earlier round.

    Attributes:
        text: What sessions are compared by: its task's name and instruction.
        group: See :func:`group_of`.
        solved_at: The attempt that solved it; None if none did.
        had: What it was given of :data:`KINDS`.
        rows: Its attempts' tokens, of the model that reads this; None if there are none.
    """

    task: str
    name: str
    text: str
    solved_at: int | None
    group: str
    rows: Rows | None = None
    had: frozenset[str] = frozenset()

    @property
    def value(self) -> float:
        return 1 / self.solved_at if self.solved_at else 0.0


@dataclass(frozen=True)
class State:
    """Everything after some rounds; immutable, so that sessions may read it side by side."""

    rounds: tuple[str, ...] = ()
    lessons: dict[str, Known] = field(default_factory=dict)
    examples: tuple[SolvedQuestion, ...] = ()
    sessions: tuple[PastSession, ...] = ()
    forgotten: frozenset[str] = frozenset()

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
        about = directory.about(name)
        same_model = bool(source.model) and Origin.of(about, folder / "round.json").model == source.model
        rows = from_file(folder / ROWS, directory.folder) if tokens and same_model and (folder / ROWS).exists() else {}
        lines = directory.lines(name, "sessions")
        known = self._credited(lines)
        for line in directory.lines(name, "lessons"):
            _take(known, line)
        groups = {str(line["task"]): _group(line) for line in lines}
        examples = [one for line in directory.lines(name, "examples") if (one := _example(line, groups)) is not None]
        past = [
            PastSession(
                str(line["task"]), str(line["name"]), str(line["text"]), _attempt(line["solved_at"]), _group(line),
                rows.get(place), frozenset(kind for kind, key in KINDS.items() if line[key]),
            )
            for place, line in enumerate(lines)
        ]  # fmt: skip
        return State((*self.rounds, name), known, (*self.examples, *examples), (*self.sessions, *past), self.forgotten)

    def _credited(self, lines: Iterable[dict[str, Any]]) -> dict[str, Known]:
        """The lessons after the sessions of a round, each compared with what was to be expected before the round."""
        known = dict(self.lessons)
        by_name: dict[str, list[float]] = {}
        for past in self.sessions:
            by_name.setdefault(past.name, []).append(past.value)
        everything = [past.value for past in self.sessions]
        for line in lines:
            before = by_name.get(str(line["name"])) or everything
            solved = _attempt(line["solved_at"])
            gain = (1 / solved if solved else 0.0) - sum(before) / len(before) if before else 0.0
            for one in line["lessons"]:
                if one in known:
                    known[one] = replace(known[one], reads=known[one].reads + 1, credit=known[one].credit + gain)
        return known

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
            if not one.retired and one.id not in self.forgotten and one.task not in self.forgotten
        ]  # fmt: skip

    @cached_property
    def _lesson_index(self) -> Relevance:
        return Relevance([f"{one.lesson.when} {one.lesson.text}" for one in self.shown_lessons])

    def relevant_lessons(self, query: str, count: int) -> list[Known]:
        """The most relevant lessons, those whose readers did better first."""
        near = self._lesson_index.best(query, POOL * count)
        best = sorted(near, key=lambda found: -found[1] * (1 + max(-0.9, self.shown_lessons[found[0]].worth)))
        return [self.shown_lessons[place] for place, _ in best[:count]]

    @cached_property
    def shown_examples(self) -> list[SolvedQuestion]:
        """Examples that may be shown."""
        return [one for one in self.examples if not {one.id, one.task} & self.forgotten]

    @cached_property
    def _example_index(self) -> Relevance:
        return Relevance([f"{one.name} {one.question}" for one in self.shown_examples])

    def relevant_examples(self, query: str, count: int, group: str | None = None) -> list[SolvedQuestion]:
        """The most relevant examples (of this group), the nearest first; never the question itself with its answer."""
        wanted = count + SAME_QUESTION if group is None else len(self.shown_examples)
        found = [self.shown_examples[place] for place, _ in self._example_index.best(query, wanted)]
        return [one for one in found if f"{one.name} {one.question}" != query and group in (None, one.group)][:count]

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
        return [past for past in self.sessions if past.rows is not None and past.task not in self.forgotten]

    @cached_property
    def common(self) -> Tensor:
        """The mean [d] of all stored hidden states, float64."""
        import torch

        return torch.cat([past.rows.hidden for past in self._with_rows if past.rows is not None]).double().mean(0)

    @cached_property
    def _session_index(self) -> Relevance:
        return Relevance([past.text for past in self._with_rows])

    def tokens_for(self, query: str, config: PriorConfig, group: str | None = None) -> list[Rows]:
        """What θ₁ is to be made of for a task like ``query``, one per session, the nearest first (of this group)."""
        wanted = config.neighbours + SAME_QUESTION if group is None else len(self._with_rows)
        found = [self._with_rows[place] for place, _ in self._session_index.best(query, wanted)]
        near = [past for past in found if past.text != query and group in (None, past.group)][: config.neighbours]
        are_near = {id(past) for past in near}
        others = [past for past in reversed(self._with_rows) if id(past) not in are_near]
        pool = {"near": near, "global": [*reversed(self._with_rows)], "both": near + others}[config.scope]
        pool = [past for past in pool if past.text != query]
        if config.rows == "corrected":
            pool = [past for past in pool if past.solved_at is not None and past.solved_at > 1]
        return [past.rows for past in pool if past.rows is not None]


def _take(known: dict[str, Known], line: dict[str, Any]) -> None:
    """A line of lessons.jsonl into ``known``; what a stranger wrote there is cleaned again, or left out."""
    if "again" in line:
        if (one := known.get(str(line["again"]))) is not None:
            known[one.id] = replace(one, support=one.support + 1)
        return
    kind, text, when = str(line["kind"]), str(line["text"]), str(line["when"])
    plain = clean_line(text) == text and clean_line(when) == when and len(text) <= words.LONGEST and len(when) <= words.LONGEST_WHEN
    if kind in ("worked", "failed") and plain and not carries_orders(text) and not carries_orders(when):
        lesson = Lesson(kind, text, when)  # type: ignore[arg-type]
        known.setdefault(lesson.id, Known(lesson, str(line["task"])))


def group_of(name: str, seed: int, domain: str) -> str:
    """What a task is alike to: others of its name; of a benchmark that has every task once (all seeds are 0), those of its domain."""
    return domain if seed == 0 and domain else name


def _group(line: dict[str, Any]) -> str:
    """Of a line of sessions.jsonl, whose ``task`` is ``<name>_<seed>``, perhaps with ``.r2`` after it."""
    name = str(line["name"])
    seed = str(line["task"]).removeprefix(f"{name}_").partition(".r")[0]
    return group_of(name, int(seed) if seed.isdecimal() else -1, str(line["domain"]))


def _example(line: dict[str, Any], groups: dict[str, str]) -> SolvedQuestion | None:
    pair, task, name = words.example(str(line["question"]), str(line["reply"])), str(line["task"]), str(line["name"])
    return None if pair is None else SolvedQuestion(str(line["id"]), task, name, *pair, groups.get(task, name))


def _attempt(value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is not the number of an attempt")
    return value
