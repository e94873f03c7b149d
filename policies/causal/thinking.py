"""Replies of thinking models: a budget of thought, the answer after it, and which tokens are anybody's choice.

T tokens of a reply · n tokens that end a thought · d hidden size
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from policies.backbone import ReadingBackbone
from policies.base import Passes, Update
from policies.causal.replies import ended, joined
from policies.causal.settings import CausalSettings
from policies.exclusion import Exclusion
from policies.generation import Generation, Prompt, Request
from policies.learned import LearnedSession
from policies.learner import HeadLearner
from policies.sampling import SamplingConfig, seed_of
from policies.thoughts import END_OF_THOUGHT, thinks_on


class ThinkingSession(LearnedSession):
    """Draws replies within their budgets, and records them in two parts: what answers, and what was not chosen or ends the turn.

    The second part enters the equations with reward 0: were the end of the turn pushed away like the answer before it, a failed "20"
    would become "2000000…" instead of another number.
    """

    engine: ReadingBackbone
    settings: CausalSettings
    sampling: SamplingConfig

    _pieces_per_reply = 2

    def __init__(self) -> None:
        self._given: list[tuple[int, int]] = []  # of every reply of this attempt, see Generation.given

    def _thinks(self, prompt: Prompt) -> bool:
        """Whether a reply to this prompt begins with a thought."""
        return thinks_on(prompt, "") or (self.settings.thinking is not False and self.engine.thinks)

    def _limit(self) -> int:
        return min(self.sampling.max_new_tokens, self.settings.max_new_tokens)

    def _draw(self, prompt: Prompt, temperature: float, seed: int, exclusion: Exclusion | None = None) -> Generation:
        """One reply; a thought over its budget is ended, and the answer asked for."""
        limit, budget = self._limit(), self.settings.thought_tokens
        sampling = dataclasses.replace(self.sampling, temperature=temperature, max_new_tokens=min(limit, budget or limit))
        reply = self._submit(prompt, sampling, seed, exclusion)
        if budget is None or reply.finish == "stop":
            return reply
        if thinks_on(prompt, reply.text):
            if len(reply.tokens) + len(self._end_tokens()) >= limit:
                return reply  # its end would leave no room for an answer
            reply = self._end_thought(prompt, reply)
        left = self._room_after(reply)
        if left <= 0:
            return reply
        sampling = dataclasses.replace(sampling, max_new_tokens=left)
        return joined(reply, self._submit(Prompt(prompt.text + reply.text, ()), sampling, seed_of(seed, "answer")))

    def _room_after(self, thought: Generation) -> int:
        """Tokens that the answer may take; one that ended by itself leaves the rest of its budget to the answer."""
        left = self._limit() - len(thought.tokens)
        return min(left, self.settings.answer_tokens) if thought.given != (0, 0) else left

    def _end_thought(self, prompt: Prompt, thought: Generation) -> Generation:
        """The thought with its end, which is put there."""
        tokens = self._end_tokens()
        if self.learner is None:
            return ended(thought, tokens, None)
        score = self.engine.score(Prompt(prompt.text + thought.text, ()), tokens, self.adapter)
        return dataclasses.replace(ended(thought, tokens, score.hidden), passes=thought.passes + Passes(1, 1))

    def _end_tokens(self) -> Tensor:
        return self.engine.tokens(END_OF_THOUGHT)[:-1]  # without the end of the turn

    def _given_in(self, tokens: Tensor) -> tuple[int, int]:
        """Where a recorded reply has the end of a thought that ran out of its budget."""
        if self.settings.thought_tokens is None:
            return 0, 0
        start = min(self._limit(), self.settings.thought_tokens)
        end = self._end_tokens()
        there = len(end) > 0 and torch.equal(tokens[start : start + len(end)].cpu(), end)
        return (start, start + len(end)) if there else (0, 0)

    def _submit(self, prompt: Prompt, sampling: SamplingConfig, seed: int, exclusion: Exclusion | None = None) -> Generation:
        return self.engine.submit(Request(prompt, sampling, seed, self.adapter, self.learner is not None, exclusion))

    # -- what is recorded of a reply: what answers by itself, its end and what nobody chose with reward 0 ------------------------
    def _record(self, reply: Generation) -> None:
        self._given.append(reply.given)
        super()._record(reply)

    def _forget(self) -> None:
        super()._forget()
        self._given = []

    def _note(self, learner: HeadLearner, hidden: Tensor, tokens: Tensor, step: int) -> None:
        n = len(tokens) - (len(tokens) > 1 and int(tokens[-1]) in self.engine.stop_ids)
        a, b = self._given[step]
        marks = self._marks(learner, tokens)
        if "frame" in marks:
            marks["frame"][a:b] = True  # they count as given
        for part, (start, end) in ((0, (0, a)), (1, (a, b)), (0, (b, n)), (1, (n, len(tokens)))):
            some = {name: mark[start:end] for name, mark in marks.items()}
            if end > start:
                learner.record(hidden[start:end], tokens[start:end], 2 * step + part, **some)

    def _of_pieces(self, rewards: Sequence[float]) -> list[float]:
        return [value for reward in rewards for value in (reward, 0.0)]

    def _in_steps(self, update: Update) -> Update:
        parts: dict[int, list[Any]] = {}
        for reply in update.replies:
            parts.setdefault(reply.step // 2, []).append(reply)
        replies = []
        for step, some in parts.items():
            before, after = (tuple(v for part in some for v in getattr(part, name)) for name in ("before", "after"))
            if len(before) == len(self._replies[step]):
                replies.append(dataclasses.replace(some[0], step=step, before=before, after=after))
        return super()._in_steps(dataclasses.replace(update, replies=tuple(replies)))
