"""A checkpoint of a known family, on an engine in this process or a server."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from envs.actions import Action
from envs.base import Observation, TaskSpec, picture
from envs.errors import UsageError
from policies.backbone import SeeingBackbone, gpu_peak
from policies.exclusion import Exclusion
from policies.families.base import Family
from policies.families.messages import Message, Platform, message
from policies.families.reply import Reply, offset_of
from policies.families.session import Draw, ProtocolSession, description, read_reply
from policies.families.settings import FamilySettings, seen_size
from policies.generation import Generation, Prompt, Request, Search
from policies.learned import LearnedSession
from policies.learner import HeadLearner
from policies.prior.policy import StartingPolicy
from policies.sampling import SamplingConfig, seed_of
from policies.thoughts import thinks_on, written


class ModelPolicy(StartingPolicy):
    """One frozen backbone; its sessions differ in history, guidance and head adapter.

    Args:
        name: As the user wrote it.
        engine: The backbone.
        family: How its checkpoints are asked and read.
        settings: What of that is in force.
        sampling: How replies are drawn.
        platform: Which prompt; None decides by the task's environment.
    """

    adaptable = True

    def __init__(
        self,
        name: str,
        engine: SeeingBackbone,
        family: Family,
        settings: FamilySettings,
        sampling: SamplingConfig,
        platform: Platform | None = None,
    ) -> None:
        self.name, self.family, self.settings, self.sampling, self.platform = name, family, settings, sampling, platform
        self._engine: SeeingBackbone | None = engine

    @property
    def engine(self) -> SeeingBackbone:
        if self._engine is None:
            raise UsageError(f"The policy {self.name} is closed.")
        return self._engine

    def open(self, task: TaskSpec, *, seed: int, adapt: Any = None) -> ModelSession:
        learner = None
        if adapt is not None and adapt.method != "none":
            learner = self.engine.learner(adapt, seed)
        return ModelSession(self, task, seed=seed, learner=learner)

    def complete(self, text: str, *, max_new_tokens: int = 1024) -> str:
        prompt = prompt_of(self.engine, self.family, self.settings, [message("user", text)])
        return written(self.engine, prompt, max_new_tokens)

    def describe(self) -> dict[str, Any]:
        return description(self.family, self.settings, self.platform)

    def memory(self) -> dict[str, float]:
        return {} if self._engine is None else gpu_peak(self._engine.device)

    def close(self) -> None:
        self._engine = None


def prompt_of(engine: SeeingBackbone, family: Family, settings: FamilySettings, messages: list[Message]) -> Prompt:
    """A conversation as the model is asked it: pictures within the family's sizes, its template's own switches set."""
    return engine.prompt(messages, settings.min_pixels, settings.max_pixels, **family.template)


class ModelSession(LearnedSession, ProtocolSession):
    """One task: its attempts' history, and its head adapter if the weights adapt."""

    def __init__(self, policy: ModelPolicy, task: TaskSpec, *, seed: int, learner: HeadLearner | None) -> None:
        super().__init__(
            task,
            seed=seed,
            family=policy.family,
            settings=policy.settings,
            sampling=policy.sampling,
            factor=policy.engine.factor,
            platform=policy.platform,
        )
        self.engine: SeeingBackbone = policy.engine
        self._written: dict[str, Tensor] = {}  # y of replies that ended, by their texts: those lack the special tokens
        self._learn_with(learner)

    # -- acting ------------------------------------------------------------------------------------------------------------------
    def begin(self, instruction: str, *, guidance: str = "", attempt: int = 1) -> None:
        super().begin(instruction, guidance=guidance, attempt=attempt)
        self._forget()
        self.engine.enter(id(self))

    def _prompt(self, messages: list[Message]) -> Prompt:
        return prompt_of(self.engine, self.family, self.settings, messages)

    def _draw(self, messages: list[Message], sampling: SamplingConfig, seed: int) -> Draw:
        prompt = self._prompt(messages)
        reply = self.engine.submit(Request(prompt, sampling, seed, self.adapter, capture=self.learner is not None))
        return self._drawn(reply, prompt)

    def _draw_untried(
        self, messages: list[Message], tried: Sequence[tuple[Action, ...]], size: tuple[int, int], step: int
    ) -> list[tuple[Draw, Reply]]:
        first = self.sampling.first_greedy and self.attempt == 1
        if first or not (self.sampling.next_best or (self.sampling.no_repeat and self.engine.has_trees)):
            return super()._draw_untried(messages, tried, size, step)
        prompt = self._prompt(messages)
        seen, pointer = prompt.images[-1].size, self._pointer

        def read(text: str) -> Reply:
            return read_reply(self.family, text, size, seen, self.settings, self.platform, pointer)

        def counts(text: str) -> bool:
            return self._is_new(read(text), tried, size)

        limit = min(self.sampling.max_new_tokens, self.settings.max_new_tokens)
        adapter, capture = self.adapter, self.learner is not None
        if self.sampling.next_best:
            found = self.engine.submit(Search(prompt, counts, self.sampling.beams, limit, adapter, capture))
        else:
            sampling = dataclasses.replace(self.sampling, max_new_tokens=limit)
            exclusion = Exclusion(counts, lambda text: read(text).parsable, self._action_at, self._spellings(bool(tried)))
            seed = seed_of(self.seed, self.task.id, self.attempt, step, 0)
            found = self.engine.submit(Request(prompt, sampling, seed, adapter, capture, exclusion))
        draw = self._drawn(found, prompt)
        return [(draw, self._read(draw, size, pointer))]

    def _spellings(self, any_tried: bool) -> tuple[tuple[int, ...], ...]:
        """Tokens of the action parts of earlier replies, if any action was tried on this screen."""
        if not any_tried:
            return ()
        found: dict[tuple[int, ...], None] = {}
        for text in dict.fromkeys([*self._texts, *(text for _, text in self.history)]):
            tokens = self._written[text] if text in self._written else self.engine.tokens(text)
            found.setdefault(tuple(tokens[self._action_at(self.engine.pieces(tokens)) :].tolist()))
        return tuple(found)

    def _action_at(self, pieces: Sequence[str]) -> int:
        """The token with which the action part of a reply begins, by the texts of its tokens."""
        text = "".join(pieces)
        _, action_text = self.family.split(text)
        at = (offset_of(action_text, text) or 0) if action_text else 0
        ends = itertools.accumulate(map(len, pieces))
        return next((n for n, end in enumerate(ends) if end > at), 0)

    @staticmethod
    def _drawn(reply: Generation, prompt: Prompt) -> Draw:
        """A reply to a prompt, whose last picture is the screenshot as the model saw it."""
        logprobs = tuple(round(value, 6) for value in reply.logprobs.tolist())
        known = tuple(reply.tokens.tolist()), logprobs, reply.passes
        total = reply.drawn_tokens or len(reply.tokens)
        redrawn, cut = (reply.redrawn, reply.redrawn_unparsable), reply.finish == "length"
        drawn = Draw(reply.text, total, float(reply.logprobs.sum()), prompt.images[-1].size, reply, *known, *redrawn)
        return drawn._replace(cut=cut, thinking=cut and thinks_on(prompt, reply.text))

    def _keep(self, draw: Draw, step: int) -> None:
        self._record(draw.extra)
        if self.sampling.no_repeat and set(draw.extra.tokens[-1:].tolist()) & self.engine.stop_ids:
            self._written[draw.text] = draw.extra.tokens

    def relive(self, steps: Sequence[tuple[Observation, str]], tokens: Sequence[Sequence[int]] = ()) -> list[float]:
        """See :meth:`policies.base.PolicySession.relive`.  A text that is tokenized again may differ from what was drawn."""
        found = []
        drawn = list(tokens) or [()] * len(steps)
        for number, (observation, text) in enumerate(steps):
            screen = Image.fromarray(picture(observation))
            prompt = self._prompt(self.messages(screen))
            y = self.engine.known(drawn[number]) if drawn[number] else self.engine.tokens(text)
            score = self.engine.score(prompt, y, self.adapter)
            found.append(float(score.logprobs.sum()))
            reply = Generation(text, y, score.hidden, score.logprobs, "stop", 0)
            self._done(screen, Draw(text, len(y), found[-1], prompt.images[-1].size, reply), number)
        return found

    def _done(self, screen: Image.Image, draw: Draw, step: int) -> None:
        """A step that was made elsewhere, as if this session had made it."""
        self._keep(draw, step)
        draw = draw._replace(cut=not set(draw.extra.tokens[-1:].tolist()) & self.engine.stop_ids)
        self._went_on(screen, draw.text, self._read(draw, screen.size, self._pointer))

    def resume(self, steps: Sequence[tuple[Observation, str]], capture: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Go on after an attempt as if this session had made it, nothing computed again: call after :meth:`begin`.

        Args:
            steps: (observation, reply) per step.
            capture: (H [n, d], y [n]) per step, as :meth:`policies.learner.HeadLearner.capture` gave them.
        """
        for number, ((observation, text), (hidden, tokens)) in enumerate(zip(steps, capture, strict=True)):
            screen = Image.fromarray(picture(observation))
            seen = seen_size(screen.size, self.settings, self.factor)
            reply = Generation(text, tokens, hidden, torch.zeros(0), "stop", 0)
            self._done(screen, Draw(text, len(tokens), None, seen, reply), number)

    def _prompt_under(self, guidance: str, step: int) -> Prompt:
        return self._prompt(self.messages(self.history[step][0], guidance=guidance, step=step))
