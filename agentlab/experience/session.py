"""What one session is given when it starts, and what it leaves when it has ended.

In the session's folder:

    given.json        what it was shown, and what θ₁ was; written before its first step
    left.safetensors  tokens of its attempts
    left.json         its lessons and its example; written last
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentlab.disk.files import disk_errors, read_json, strict_json, write_atomic
from agentlab.disk.given import GIVEN, LEFT
from agentlab.disk.names import digest
from agentlab.disk.record import load_trace
from agentlab.disk.row import Row
from agentlab.experience.config import ExperienceConfig
from agentlab.experience.known import asked, group_of
from agentlab.experience.state import KINDS, State
from agentlab.experience.stored import from_file, to_bytes
from envs.base import TaskSpec
from envs.errors import AdaptationError, InfrastructureError, PolicyError, StoreError
from policies.base import Policy, PolicySession
from policies.rosa.config import RosaConfig
from policies.sampling import seed_of
from retrospect import lessons as words
from retrospect.engines import WordsEngine
from retrospect.lessons import Lesson
from retrospect.trace import Trace

if TYPE_CHECKING:
    from policies.prior.step import Rows

ROWS = "left.safetensors"
MOST_FAILURES = 3
"""Failed attempts of a session whose tokens are kept: the first ones, which the frozen policy is most likely to make."""


@dataclass(frozen=True)
class Start:
    """What a session is given.

    Attributes:
        lessons: Text for its prompt, "" if there is none.
        examples: (question, reply), the nearest last.
        theta: θ₁; None where it starts frozen.
        record: All of it, JSON-serialisable.
    """

    lessons: str
    examples: tuple[tuple[str, str], ...]
    theta: Any
    record: dict[str, Any]


COUNTS = ("T", "T_solved", "sessions")
"""Of what is recorded of θ₁: what is the same everywhere."""


class SessionExperience:
    """The experience of one session; used by one thread at a time.

    Args:
        state: What was known when its round began.
        policy: Whose sessions they are.
        engine: Makes who writes its lessons; gives None for the rules.
        seed: Of the session.
        begun: It has attempts that count, made with what it was given.
        judged: A judge alone says what is learned from it.
    """

    def __init__(
        self,
        config: ExperienceConfig,
        state: State,
        task: TaskSpec,
        folder: Path,
        *,
        policy: Policy,
        engine: Callable[[], WordsEngine | None],
        seed: int,
        uses_weights: bool,
        begun: bool = False,
        judged: bool = False,
    ) -> None:
        self.config, self.state, self.task, self.folder = config, state, task, folder
        self.policy, self.engine, self.seed, self.uses_weights, self.begun = policy, engine, seed, uses_weights, begun
        self.judged = judged
        self._group = group_of(task.name, task.seed, task.domain)
        self._kin = self._group if config.same_name else None
        self._given: Start | None = None

    # -- when it starts --------------------------------------------------------------------------------------------------------
    def give(self, theta: PolicySession, instruction: str) -> Start:
        """Let ``theta`` start from what is known about tasks like this one; the same for every attempt and after a resume.

        Raises:
            StoreError: a resumed session was given something else when it began.
        """
        if self._given is None:
            self._given = self._find(instruction)
            self._record(self._given.record)
        if self._given.examples:
            theta.show(self._given.examples)
        if self._given.theta is not None:
            theta.start(self._given.theta)
        return self._given

    def _find(self, instruction: str) -> Start:
        query = text_of(self.task, instruction)
        lessons = self.state.relevant_lessons(query, self.config.lessons, self.task.id)
        most = self.config.examples if self.policy.takes_examples else 0
        held_back = [kind for kind in KINDS if self._holds_back(kind)]
        examples = [] if "examples" in held_back else self.state.relevant_examples(query, most, self._kin, instruction)[::-1]
        theta, numbers = (None, {"reason": "held back"}) if "weights" in held_back else self._theta_1(query)
        record = {
            "rounds": list(self.state.rounds),
            "state": self.state.digest,
            "lessons": [{"id": one.id, **vars(one.lesson)} for one in lessons],
            "examples": [{"id": one.id, "task": one.task, "question": one.question, "reply": one.reply} for one in examples],
            "theta_1": numbers,
        }
        if self.config.credited:
            record["held_back"] = held_back
        shown = words.render([one.lesson for one in lessons])
        return Start(shown, tuple((one.question, one.reply) for one in examples), theta, record)

    def _theta_1(self, query: str) -> tuple[Any, dict[str, Any]]:
        if not self.uses_weights:
            return None, {}
        sessions = self.state.tokens_for(query, self.config.weights, self._kin, self._asked(query))
        if not sessions:
            return None, {"reason": "too few earlier sessions"}
        try:
            return self.policy.prior(sessions, self.config.weights, self.state.common)
        except AdaptationError as error:
            return None, {"reason": error.message}

    def _asked(self, text: str) -> str:
        return asked(text, self.task.id, a_question=self.policy.takes_examples)

    def _holds_back(self, kind: str) -> bool:
        return self.config.credited and not self.state.helps(kind, self._group, seed_of(self.seed, "experience", kind))

    def _record(self, record: dict[str, Any]) -> None:
        """Write it down, or see that it is what was written down when the session began (seconds apart, which are not repeated).

        Of a session without an attempt that counts nothing has come of what an earlier start had given it.
        """
        path = self.folder / GIVEN
        if self.begun and (old := _read(path)) is not None:
            if strict_json(_repeatable(old)) != strict_json(_repeatable(record)):
                raise StoreError(
                    f"{path} says that this session was given something else when it began.",
                    "Its experience directory has changed since. Restore that, or start a new run with --out DIR.",
                )
            return
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, strict_json(record, indent=2) + "\n")

    # -- when it has ended -----------------------------------------------------------------------------------------------------
    def leave(self, made: Sequence[Row]) -> None:
        """Write down what the ended session leaves; nothing of attempts that the machinery kept from ending.

        Args:
            made: Its rows.
        """
        of = digest(strict_json([[row.attempt, row.outcome, row.success, row.actions_hash] for row in made]))
        path = self.folder / LEFT
        if (left := _read(path)) is not None and left.get("of") == of and self._is_whole(left):
            return
        started = time.perf_counter()
        whole = bool(made) and made[-1].graded  # a session that the machinery ended says nothing of how its task can be solved
        traces = [load_trace(self.folder / f"attempt_{row.attempt:02d}") for row in made] if whole else []
        solved = whole and made[-1].reward == 1  # what is learned follows a judge, where one decides
        content: dict[str, Any] = {"of": of, "text": "", "same": "", "lessons": [], "example": None, "error": "", "cost": {}}
        engine = self.engine() if traces and self.config.lessons else None
        silent = {row.attempt for row in made if self.judged and row.judge is not None and row.judge.score is None}
        known = [trace for trace in traces if trace.attempt not in silent]  # nobody has said how the others ended
        if traces:
            lessons, error = self._lessons(known, solved, engine)
            content |= {
                "text": text_of(self.task, traces[0].instruction),
                "same": self._asked(text_of(self.task, traces[0].instruction)),
                "lessons": [vars(one) for one in lessons],
                "error": error,
            }
            content["example"] = self._example(traces[-1]) if solved else None
        with disk_errors(path):
            (self.folder / ROWS).write_bytes(to_bytes([self._tokens(known, solved, traces[0].guidance if traces else "", content)]))
        spent = vars(engine.usage) if engine is not None else {}
        content["cost"] = {"seconds": round(time.perf_counter() - started, 4), **spent}
        write_atomic(path, strict_json(content, indent=2) + "\n")

    def _is_whole(self, left: dict[str, Any]) -> bool:
        """Whether what was left can be added; what was damaged since is written again."""
        try:
            check_left(left)
            from_file(self.folder / ROWS, self.folder)
        except StoreError:
            return False
        return True

    def _lessons(self, traces: Sequence[Trace], solved: bool, engine: WordsEngine | None) -> tuple[list[Lesson], str]:
        """What is learned in words, and why not."""
        if self.config.lessons == 0:
            return [], ""
        try:
            return words.distil(self.task.name, traces, solved, engine), ""
        except (InfrastructureError, AdaptationError, PolicyError) as error:
            return [], error.message

    def _example(self, trace: Trace) -> dict[str, Any] | None:
        """The question and the answer that solved it, of a task whose attempts are one answer to a text."""
        if self.config.examples == 0 or len(trace.steps) != 1 or "text" not in trace.steps[0].observation:
            return None
        step = trace.steps[0]
        pair = words.example(trace.instruction, step.text)
        if pair is None:
            return None
        return {"id": digest("\x00".join(pair))[:12], "question": pair[0], "reply": pair[1], "attempt": trace.attempt}

    def _tokens(self, traces: Sequence[Trace], solved: bool, guidance: str, content: dict[str, Any]) -> Rows | None:
        """The undecided tokens of the attempt that solved it (+1) and of the first that failed (−1), each as an answer to the prompt of
        attempt 1 (under its ``guidance``), by the frozen policy: a pass over each of its own, so that no batch has a say in the last digit.

        ``content`` gets ``frozen_logprob``: what attempt 1 said, under the frozen policy.
        """
        if not self.uses_weights or not traces:
            return None
        from policies.prior.step import Rows

        failed = traces[:-1] if solved else traces
        parts = []
        theta = self.policy.open(self.task, seed=self.seed, adapt=RosaConfig())
        try:
            for trace, reward in [*((t, -1.0) for t in failed[:MOST_FAILURES]), *((t, 1.0) for t in traces[-1:] if solved)]:
                logprobs, rows = self._relived(theta, trace, reward, guidance)
                parts.append(rows)
                if trace.attempt == 1:
                    content["frozen_logprob"] = round(sum(logprobs), 5)
        except AdaptationError:  # it does not fit into memory, or its tokens are another model's
            return None
        finally:
            theta.close()
        found = [rows for rows in parts if rows is not None]
        return Rows.joined(found).most(self.config.weights.max_tokens) if found else None

    def _relived(self, theta: PolicySession, trace: Trace, reward: float, guidance: str) -> tuple[Sequence[float], Rows | None]:
        theta.show(self._shown_examples())
        theta.begin(trace.instruction, guidance=guidance, attempt=1)
        try:
            steps = [(step.observation, step.text) for step in trace.steps]
            logprobs = theta.relive(steps, [step.token_ids for step in trace.steps])
            return logprobs, theta.rows(reward)
        finally:
            theta.discard()

    def _shown_examples(self) -> list[tuple[str, str]]:
        """As it was written down when the session began, by whichever process."""
        found = (_read(self.folder / GIVEN) or {}).get("examples")
        lines = [line for line in found if isinstance(line, dict)] if isinstance(found, list) else []
        return [(str(line.get("question", "")), str(line.get("reply", ""))) for line in lines]


def check_left(left: dict[str, Any]) -> None:
    """Raises StoreError unless it has what :meth:`SessionExperience.leave` writes."""
    lessons, example = left.get("lessons"), left.get("example")
    texts = [left.get("text"), left.get("same", "")]
    good = all(isinstance(one, str) for one in texts) and isinstance(lessons, list)
    for line in [*(lessons if isinstance(lessons, list) else []), *([] if example is None else [example])]:
        good = good and isinstance(line, dict) and all(isinstance(v, str) for k, v in line.items() if k != "attempt")
    good = good and all(set(line) == {"kind", "text", "when"} for line in lessons or [])
    if not good or (example is not None and not {"id", "question", "reply"} <= set(example)):
        raise StoreError("What a session left is not what was written.", "Start a new run with --out DIR.")


def text_of(task: TaskSpec, instruction: str) -> str:
    """What sessions are compared by."""
    return f"{task.name} {instruction}"[:4000]


def _read(path: Path) -> dict[str, Any] | None:
    """One of our two files; None if it is not there or is damaged, and is to be written again."""
    if not os.path.lexists(path):
        return None
    try:
        return read_json(path)
    except StoreError:
        return None


def _repeatable(record: dict[str, Any]) -> dict[str, Any]:
    """Without what another machine, or another number of threads, computes with other last digits: of θ₁ only what it was made of."""
    theta = record.get("theta_1")
    return {**record, "theta_1": {k: v for k, v in theta.items() if k in COUNTS} if isinstance(theta, dict) else theta}
