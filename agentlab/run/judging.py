"""Where a judge decides (:mod:`retrospect.judge`): what it is shown, what follows from its score.

``adapt.words.credit=judge`` (the papers' "+M"): the weights learn from its score; the benchmark's grader still says when a session ends.
A benchmark whose options hand that over as well (of ``reasoning``: ``env.feedback=judge``) is *judged*: what stops a session and all
that is learned follow the judge alone, and the grader only keeps score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentlab.disk.row import JudgeColumns
from envs import actions as act
from envs.answers import after_thought
from envs.base import Environment
from policies.base import Decision
from retrospect.judge import Judge, Judgement

if TYPE_CHECKING:
    from agentlab.run.config import RunConfig


@dataclass(frozen=True)
class Bench:
    """The judge of a session's attempts.

    Attributes:
        judge: Who scores.
        alone: It decides what stops the session.
        graded: The weights learn from its score.
        accepts: Score from which an answer is accepted.
    """

    judge: Judge
    alone: bool
    graded: bool
    accepts: float

    @classmethod
    def of(cls, config: RunConfig, judge: Judge | None) -> Bench | None:
        words = config.adapt.words
        return None if judge is None else cls(judge, config.judged, words.credit == "judge", words.judge_accepts)

    def hear(
        self, env: Environment, instruction: str, decision: Decision, info: dict[str, Any], *, learns: bool
    ) -> JudgeColumns | None:
        """The judgement on an attempt that has just ended; what the user says to one that is not accepted goes into ``info``.

        None where nobody wants it: the grader decides, and nothing is learned from this attempt, or there is no right answer to hold
        it against.

        Raises:
            InfrastructureError: the endpoint failed.
        """
        reference = env.reference()
        if not self.alone and (reference is None or not learns):
            return None
        given = self.judge(instruction, reference or "", answer_of(decision))
        accepted = given.score is not None and given.score >= self.accepts
        if self.alone and not accepted and (said := env.objection()):
            info["feedback"] = said
        return columns(given, accepted)

    def credit(self, judgement: JudgeColumns | None, steps: int) -> tuple[float, ...] | None:
        """What follows from the judgement for each step; None where there is none to learn from."""
        return credit_of(judgement, steps, alone=self.alone, graded=self.graded)

    def silent(self, judgement: JudgeColumns | None) -> bool:
        """The judge decides, and gave no score: nothing can be learned."""
        return self.alone and judgement is not None and judgement.score is None


def credit_of(judgement: JudgeColumns | None, steps: int, *, alone: bool, graded: bool) -> tuple[float, ...] | None:
    """See :meth:`Bench.credit`."""
    if judgement is None:
        return None
    if judgement.score is None:  # alone: nobody has said that it is wrong; else the grader has, and no second judge is asked
        return (0.0 if alone else -1.0,) * steps
    return (judgement.score,) * steps if graded else None


def answer_of(decision: Decision) -> str:
    """What a reply answers, without its thought."""
    last = decision.actions[-1] if decision.actions else None
    if isinstance(last, act.Answer | act.Finished):
        return after_thought(last.text) or ""
    return after_thought(decision.text) or ""


def columns(given: Judgement, accepted: bool) -> JudgeColumns:
    """As it stands in the row and in judge.json."""
    return JudgeColumns(**given.to_json(), accepted=accepted)


def decided(judgement: JudgeColumns | None, solved: bool, *, alone: bool) -> bool:
    """r_t = +1: by the judge alone, or by the grader."""
    return judgement.accepted if alone and judgement is not None else solved
