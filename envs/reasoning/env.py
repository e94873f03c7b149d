"""Questions as a Gymnasium environment: ``gymnasium.make("agentlab/reasoning-v0")``.  One answer per attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

from envs import actions as act
from envs.answer_forms import LETTERS
from envs.answer_hints import objection
from envs.base import Observation, TaskSpec
from envs.errors import UsageError, did_you_mean
from envs.reasoning import gym
from envs.reasoning.code import IMAGE, SECONDS, Sandbox, grade_code
from envs.reasoning.graders import NO_ANSWER, Verdict, grade
from envs.reasoning.items import Item
from envs.reasoning.suite import ENV_ID, item_of
from envs.text import TextEnv

Feedback = Literal["none", "wrong", "hint", "judge"]
REPEATED = "{said} Give a different answer. {question}"
"""The user's turn after a failed attempt repeats the question: a small model otherwise answers the user's sentence."""


class ReasoningEnv(TextEnv):
    """One question; the agent's one reply is its answer, and the verifier of the question's kind grades it.

    Observation: ``{"text": question}``, with its options where it has some.  Action: ``Answer(text)`` or ``Finished(text)`` with the
    reply as it is: the final answer is found by the grader, after the thought of a thinking model.  Score: 1 or 0.  At the end
    ``info["answer"]`` is the final answer in its normal form (None: there was not exactly one), and ``info["feedback"]`` what the
    user says to a wrong one.

    Args:
        feedback: What the user says: ``none``; ``wrong``: that it is wrong, and the question again; ``hint``: also what a user could
            honestly add without giving the answer away ("too large", a failing test's output); ``judge``: that it is wrong, where a
            judge has not accepted it (:meth:`objection`): the grader only keeps score.
        sandbox: Runs the code of ``code`` questions; by default one of this environment's own, made when first needed.
        code_image: Image of that one.
        code_seconds: Its time limit.
        oracle: Let :meth:`oracle` know the answers, for tests and training data.
        render_mode: ``ansi`` or None.
    """

    choices: ClassVar[Mapping[str, Sequence[str]]] = {"feedback": get_args(Feedback)}
    withheld: ClassVar[Sequence[str]] = ("sandbox", "code_image", "code_seconds")

    def __init__(
        self, *, feedback: str = "wrong", sandbox: Sandbox | None = None, code_image: str = IMAGE, code_seconds: float = SECONDS,
        oracle: bool = False, render_mode: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(kinds=(act.Answer, act.Finished, act.Fail, act.Invalid), render_mode=render_mode)
        if feedback not in get_args(Feedback):
            raise UsageError(f"Unknown feedback {feedback!r}.", did_you_mean(feedback, get_args(Feedback), what="feedback"))
        self.feedback, self.oracle_available = feedback, oracle
        self._sandbox, self._own_sandbox = sandbox, False
        self._code = {"image": code_image, "seconds": code_seconds}
        self._item: Item | None = None
        self._reply: str | None = None
        self._verdict: Verdict | None = None

    def _default_task(self, seed: int) -> TaskSpec:
        names = list(gym.FAMILIES)
        return TaskSpec(ENV_ID, names[seed % len(names)], seed % gym.TRAIN_SEED_START, max_steps=1, options={"source": "gym"})

    # -- the hooks of TaskEnv --------------------------------------------------------------------------------------------------
    def _start(self, task: TaskSpec) -> str:
        self._item, self._reply, self._verdict = item_of(task), None, None
        return self._item.prompt()

    def _execute(self, action: act.Action) -> None:
        assert isinstance(action, act.Answer)
        self._reply = action.text

    def _ended(self) -> bool:
        return self._reply is not None

    def _observe(self) -> Observation:
        assert self._item is not None
        return Observation(text=self._item.prompt())

    def _grade(self, last: act.Action | None) -> float:
        assert self._item is not None
        reply = last.text if isinstance(last, act.Answer | act.Finished) else ""
        if self._item.kind == "code":
            self._verdict = grade_code(self._item, reply, self._code_sandbox()) if reply else Verdict(0.0, None, NO_ANSWER)
        else:
            self._verdict = grade(self._item, reply)
        return self._verdict.score

    def _feedback(self, score: float | None) -> str:
        if self._item is None or self._verdict is None or score is None or score >= 1.0 or self.feedback in ("none", "judge"):
            return ""
        hint = self._verdict.hint if self.feedback == "hint" else ""
        return REPEATED.format(said=objection(hint), question=self._item.prompt())

    def reference(self) -> str | None:
        if self._item is None:
            return None
        if self._item.kind == "code":
            return "\n\n".join(filter(None, [self._item.answer, f"It must pass these tests:\n{self._item.tests}"]))
        texts = dict(zip(LETTERS, self._item.choices, strict=False))
        letter = self._item.answer.strip().upper()
        return f"{letter}. {texts[letter]}" if self._item.kind == "choice" and letter in texts else self._item.answer

    def objection(self) -> str:
        return REPEATED.format(said=objection(""), question=self._item.prompt()) if self._item is not None else ""

    def step(self, action: act.Action | tuple[act.Action, ...]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        if self._verdict is not None:
            info["answer"] = self._verdict.answer
        return observation, reward, terminated, truncated, info

    def oracle(self) -> tuple[str, tuple[act.Action, ...]] | None:
        """The right answer, for tests and training data."""
        if not self.oracle_available or self._item is None or not self._item.answer:
            return None
        answer = self._item.answer
        return "", (act.Answer(f"```python\n{answer}\n```" if self._item.kind == "code" else answer),)

    def _code_sandbox(self) -> Sandbox:
        if self._sandbox is None:
            self._sandbox, self._own_sandbox = Sandbox("reasoning", **self._code), True  # type: ignore[arg-type]
        return self._sandbox

    def close(self) -> None:
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None and self._own_sandbox:
            sandbox.close()
