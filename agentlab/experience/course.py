"""The experience of one run: which rounds its sessions form, what each round reads, and what is added when one has ended.

A run notes which rounds were there when it began.  A session of its k-th round reads those and the run's own first k, whoever else
has added to the directory since, whenever it is run and by whichever worker: that is what makes a resumed run the same run.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.disk.files import read_json, strict_json, write_atomic
from agentlab.disk.given import GIVEN, LEFT
from agentlab.disk.row import Row
from agentlab.disk.store import RunStore
from agentlab.experience.config import ExperienceConfig
from agentlab.experience.directory import Directory, Origin
from agentlab.experience.session import ROWS, SessionExperience, check_left
from agentlab.experience.state import State
from agentlab.experience.stored import from_file, to_bytes
from envs.base import TaskSpec
from envs.errors import StoreError, UsageError
from policies.base import Policy
from retrospect.engines import WordsEngine
from retrospect.lessons import Lesson

NOTE = "experience.json"
"""In the run's folder: which rounds were there when the run began."""


@dataclass(frozen=True)
class Round:
    """Sessions that read the same state.

    Attributes:
        number: From 0, within the run.
        tasks: In the order of the plan.
        added: What they left has been added.
    """

    number: int
    tasks: tuple[TaskSpec, ...]
    added: bool = False


class Course:
    """The experience of a run.

    Args:
        folder: Of the run; it is locked by the caller.
        say: Told what the user should know.
        fresh: The run has no attempts yet, so that its settings, and with them its directory, may be others than at an earlier start.
        judged: A judge alone says what is learned; the grader only keeps score.

    Raises:
        StoreError: the directory cannot be used, or is another's.
    """

    def __init__(
        self,
        config: ExperienceConfig,
        folder: Path,
        policy: Policy,
        benchmark: str,
        say: Callable[[str], None] = lambda line: None,
        *,
        fresh: bool = False,
        judged: bool = False,
    ) -> None:
        assert config.dir is not None
        self.config, self.folder, self.policy, self.judged = config, folder, policy, judged
        self.directory = Directory(config.dir)
        self._guard = threading.Lock()
        self.source = Origin(policy.name, policy.fingerprint(), benchmark)
        self.uses_weights = config.weights.scope != "none" and policy.adaptable and bool(self.source.model)
        if config.weights.scope != "none" and not self.uses_weights:
            say(f"{policy.name} has no weights to start from: sessions take words only from the experience.")
        try:
            if config.add:
                self.directory.lock()
                self.directory.begin(self.source)
            self._refuse_foreign()
            note = self._note(fresh)
            self.run, self._base, self._forgotten = note["run"], list(note["rounds"]), frozenset(note["forgotten"])
            self._latest = (0, self._state(State(forgotten=self._forgotten), self._base))
            self._own = self._own_rounds(self._base)
        except BaseException:
            self.directory.close()
            raise

    def _refuse_foreign(self) -> None:
        there = self.directory.source()
        difference = self.source.differs(there)
        if difference and not self.config.foreign:
            raise StoreError(
                f"The experience in {self.directory.folder} is another's: {difference}.",
                "Name another directory, or use it all the same with --set experience.foreign=true.",
            )

    def _note(self, fresh: bool) -> dict[str, Any]:
        """What was there when the run began, written down the first time."""
        path = self.folder / NOTE
        if fresh or not os.path.lexists(path):
            begun = {"run": uuid.uuid4().hex[:12], "rounds": self.directory.rounds(), "forgotten": self.directory.forgotten()}
            write_atomic(path, strict_json(begun, indent=2) + "\n")
        note = read_json(path)
        lists = [note.get(name) for name in ("rounds", "forgotten")]
        whole = all(isinstance(some, list) and all(isinstance(one, str) for one in some) for some in lists)
        if not isinstance(note.get("run"), str) or not whole:
            raise StoreError(f"{path} is corrupt.", "Start a new run with --out DIR.")
        return note

    def _state(self, state: State, rounds: Sequence[str]) -> State:
        for name in rounds:
            state = state.after(self.directory, name, self.source, tokens=self.uses_weights)
        return state

    def _own_rounds(self, base: Sequence[str]) -> list[str]:
        """Names of the rounds that this run has added, in order.

        Raises:
            StoreError: one of them is missing.
        """
        later = [name for name in self.directory.rounds() if name not in set(base)]
        about = [(name, self.directory.about(name)) for name in later]
        own = [(data["number"], name) for name, data in about if data.get("run") == self.run]
        if [number for number, _ in sorted(own)] != list(range(len(own))):
            raise StoreError(
                f"A round that this run added is missing in {self.directory.folder}.",
                "Restore it, or start a new run with --out DIR.",
            )
        return [name for _, name in sorted(own)]

    # -- rounds ----------------------------------------------------------------------------------------------------------------
    def rounds(self, tasks: Sequence[TaskSpec], store: RunStore) -> list[Round]:
        """The rounds of a plan: those that were added, and the rest of the plan after them.

        A plan may have grown, also before its end (`repeats`): sessions that have begun stay in the round that they began in.

        Raises:
            UsageError: a round was added with sessions that are not in the plan.
        """
        by_id = {task.id: task for task in tasks}
        found: list[Round] = []
        for number, name in enumerate(self._own):
            ids = self.directory.about(name)["tasks"]
            if not set(ids) <= by_id.keys():
                raise UsageError(f"The round {name} has sessions that are not in this plan.", "Start a new run with --out DIR.")
            found.append(Round(number, tuple(by_id.pop(one) for one in ids), added=True))
        left, size = list(by_id.values()), self.config.every
        first = {task.id for task in left if store.session(task.id).rows()} if self.config.add else set()
        first |= {task.id for task in [task for task in left if task.id not in first][: max(0, size - len(first))]}
        left = [task for task in left if task.id in first] + [task for task in left if task.id not in first]
        return found + [Round(len(found) + i, tuple(left[i * size : (i + 1) * size])) for i in range(-(-len(left) // size))]

    def state(self, number: int) -> State:
        """What round ``number`` reads: those before it have been added."""
        with self._guard:
            done, state = self._latest
            if not self.config.add:
                return state
            if number < done:  # of a session that was set aside; seldom, and nothing is kept for it
                return self._state(State(forgotten=self._forgotten), [*self._base, *self._own[:number]])
            self._latest = (number, self._state(state, self._own[done:number]))
            return self._latest[1]

    def session(
        self, round_: Round, task: TaskSpec, store: RunStore, *, engine: Callable[[], WordsEngine | None], seed: int
    ) -> SessionExperience:
        """The experience of one session of a round."""
        session = store.session(task.id)
        return SessionExperience(
            self.config, self.state(round_.number), task, session.folder,
            policy=self.policy, engine=engine, seed=seed, uses_weights=self.uses_weights, begun=bool(session.rows()), judged=self.judged,
        )  # fmt: skip

    def adds(self, round_: Round) -> bool:
        """Whether what the sessions of a round leave is still to be added."""
        return self.config.add and not round_.added

    def end(self, round_: Round, store: RunStore) -> None:
        """Add what the sessions of a round left; all of them have ended.  Called by one thread."""
        if not self.adds(round_):
            return
        known = [one.lesson for one in self.state(round_.number).lessons.values()]
        parts: dict[str, list[dict[str, Any]]] = {"sessions": [], "lessons": [], "examples": []}
        rows = []
        examples = self.state(round_.number).settled_examples
        for task in round_.tasks:
            session = store.session(task.id)
            left, made = read_json(session.folder / LEFT), session.rows()
            if not made[-1].graded:  # the machinery ended it
                continue
            check_left(left)
            parts["sessions"].append(_session_line(task, made, session.folder, left))
            for line in left["lessons"]:
                parts["lessons"].append(_lesson_line(Lesson(**line), known, task.id))
            if left["example"] is not None and left["example"]["id"] not in examples:
                examples.add(left["example"]["id"])
                parts["examples"].append({**left["example"], "task": task.id, "name": task.name})
            rows.append(from_file(session.folder / ROWS, self.folder).get(0))
        about = {"run": self.run, "number": round_.number, "tasks": [task.id for task in round_.tasks], **self.source.to_json()}
        self._own.append(self.directory.add(about, parts, to_bytes(rows)))

    def close(self) -> None:
        """Let others add to the directory.  May be called twice."""
        self.directory.close()


def _session_line(task: TaskSpec, made: Sequence[Row], folder: Path, left: dict[str, Any]) -> dict[str, Any]:
    graded = [row for row in made if row.graded]
    given = read_json(folder / GIVEN)
    theta = given.get("theta_1")
    shown = {name: _ids(given.get(name)) for name in ("lessons", "examples")}
    if not isinstance(theta, dict) or None in shown.values():
        raise StoreError(f"{folder / GIVEN} is corrupt.", "Start a new run with --out DIR.")
    return {
        "task": task.id,
        "name": task.name,
        "domain": task.domain,
        "text": left["text"] or task.name,
        "same": left.get("same") or task.id,
        "solved_at": next((row.attempt for row in graded if row.reward == 1), None),  # who decides what is learned says so
        "attempts": len(graded),
        **shown,
        "theta_1": str(theta.get("digest", "")),
    }


def _ids(lines: object) -> list[str] | None:
    """The ids of what a session was shown; None of what is no such list."""
    if not isinstance(lines, list) or not all(isinstance(one, dict) and isinstance(one.get("id"), str) for one in lines):
        return None
    return [one["id"] for one in lines]


def _lesson_line(lesson: Lesson, known: list[Lesson], task: str) -> dict[str, Any]:
    """A new lesson's line, which is then known; of one that is known already, its name."""
    same = next((one for one in known if one.same_as(lesson)), None)
    if same is not None:
        return {"again": same.id, "task": task}
    known.append(lesson)
    return {"id": lesson.id, **vars(lesson), "task": task}
