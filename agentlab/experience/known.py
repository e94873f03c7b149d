"""What rounds are made of once they are read: lessons, solved questions and sessions, from lines that may be damaged or a stranger's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from envs.numerals import whole
from retrospect import lessons as words
from retrospect.lessons import Lesson

if TYPE_CHECKING:
    from policies.prior.step import Rows

REPEAT = re.compile(r"\.r[0-9]+$")
"""What follows the id of a task in its second and later repeats."""
READ_BEFORE_RETIRED = 4
"""A lesson is retired at the earliest after this many sessions have read it …"""
RETIRED_BELOW = -0.1
"""… if these did worse than expected by this much in the mean (1: solved at once, 1/k: at attempt k, 0: not)."""


@dataclass(frozen=True)
class Known:
    """A lesson and what became of it.

    Attributes:
        taught_by: The sessions that taught it, ``<round>/<task>``, the first one first.
        reads: Sessions that read it.
        credit: Sum over these of how much better they went than expected.
    """

    lesson: Lesson
    taught_by: tuple[str, ...]
    reads: int = 0
    credit: float = 0.0

    @property
    def id(self) -> str:
        return self.lesson.id

    @property
    def task(self) -> str:
        """The session that it comes from."""
        return _task(self.taught_by[0])

    @property
    def support(self) -> int:
        return len(self.taught_by)

    def forgotten(self, ids: frozenset[str]) -> bool:
        """Whether it was named, or all that taught it were."""
        return self.id in ids or all(named(one, ids) for one in self.taught_by)

    def only_of(self, task: str) -> bool:
        """Whether nobody but this task, or another repeat of it, taught it."""
        return all(same_task(_task(one)) == same_task(task) for one in self.taught_by)

    @property
    def worth(self) -> float:
        """Mean credit; of a lesson that few have read, near 0."""
        return self.credit / (self.reads + 2)

    @property
    def retired(self) -> bool:
        return self.reads >= READ_BEFORE_RETIRED and self.credit / self.reads <= RETIRED_BELOW


@dataclass(frozen=True)
class SolvedQuestion:
    """A solved question.

    Attributes:
        origin: The session that it comes from, ``<round>/<task>``.
        group: See :func:`group_of`.
    """

    id: str
    origin: str
    name: str
    question: str
    reply: str
    group: str

    @property
    def task(self) -> str:
        return _task(self.origin)

    def forgotten(self, ids: frozenset[str]) -> bool:
        return self.id in ids or named(self.origin, ids)


@dataclass(frozen=True)
class PastSession:
    """A session of an earlier round.

    Attributes:
        origin: ``<round>/<task>``.
        text: What sessions are compared by: its task's name and instruction.
        same: Equal for sessions that were asked the same (:func:`asked`).
        group: See :func:`group_of`.
        solved_at: The attempt that solved it; None if none did.
        had: What it was given of :data:`KINDS`.
        rows: Its attempts' tokens, of the model that reads this; None if there are none.
    """

    origin: str
    name: str
    text: str
    same: str
    solved_at: int | None
    group: str
    rows: Rows | None = None
    had: frozenset[str] = frozenset()

    @property
    def task(self) -> str:
        return _task(self.origin)

    @property
    def value(self) -> float:
        return 1 / self.solved_at if self.solved_at else 0.0


def take(known: dict[str, Known], line: dict[str, Any], round_: str) -> None:
    """A line of lessons.jsonl into ``known``; what a stranger wrote there is checked again, as far as the line alone tells."""
    origin = f"{round_}/{line['task']}"
    if "again" in line:
        if (one := known.get(str(line["again"]))) is not None:
            known[one.id] = replace(one, taught_by=(*one.taught_by, origin))
        return
    kind, text, when = str(line["kind"]), str(line["text"]), str(line["when"])
    if kind not in ("worked", "failed") or not words.plain(text, words.LONGEST) or not words.plain(when, words.LONGEST_WHEN):
        return
    lesson = Lesson(kind, text, when)  # type: ignore[arg-type]
    one = known.get(lesson.id)
    known[lesson.id] = Known(lesson, (origin,)) if one is None else replace(one, taught_by=(*one.taught_by, origin))


def same_task(task: str) -> str:
    """The id of a task, whichever of its repeats."""
    return REPEAT.sub("", task)


def _task(origin: str) -> str:
    return origin.partition("/")[2]


def named(origin: str, ids: frozenset[str]) -> bool:
    """Whether a session was to be forgotten: by what it left in that round, or (by an earlier version) by its task."""
    return origin in ids or _task(origin) in ids


def asked(text: str, task: str, *, a_question: bool) -> str:
    """Equal for sessions that were asked the same: of questions their text, of tasks on a screen the task and its seed."""
    return text.strip() if a_question else same_task(task)


def checked(line: dict[str, Any]) -> dict[str, Any]:
    """A line of sessions.jsonl, all of whose fields are what they are to be."""
    texts = [line[key] for key in ("task", "name", "domain", "text", "theta_1")] + [line.get("same", "")]
    lists: list[Sequence[Any]] = [line["lessons"], line["examples"]]
    if not all(isinstance(one, str) for one in texts) or not all(isinstance(one, list) for one in lists):
        raise ValueError("a session is not told in texts and lists")
    if not all(isinstance(one, str) for some in lists for one in some) or type(line["attempts"]) is not int:
        raise ValueError("a session is not told in texts and numbers")
    _attempt(line["solved_at"])
    return line


def group_of(name: str, seed: int, domain: str) -> str:
    """What a task is alike to: others of its name; of a benchmark that has every task once (all seeds are 0), those of its domain."""
    return domain if seed == 0 and domain else name


def group_in(line: dict[str, Any]) -> str:
    """Of a line of sessions.jsonl, whose ``task`` is ``<name>_<seed>``, perhaps with ``.r2`` after it."""
    name = str(line["name"])
    seed = same_task(str(line["task"])).removeprefix(f"{name}_")
    return group_of(name, -1 if (number := whole(seed)) is None else number, str(line["domain"]))


def example(line: dict[str, Any], groups: dict[str, str], round_: str) -> SolvedQuestion | None:
    pair, task, name = words.example(str(line["question"]), str(line["reply"])), str(line["task"]), str(line["name"])
    return None if pair is None else SolvedQuestion(str(line["id"]), f"{round_}/{task}", name, *pair, groups.get(task, name))


def _attempt(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is not the number of an attempt")
    return value
