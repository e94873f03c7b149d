"""A checkpoint of a known family, on an engine in this process or a server."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from envs.actions import Action
from envs.base import Observation, TaskSpec, picture
from envs.errors import AdaptationError, PolicyError, UsageError
from policies.backbone import SeeingBackbone
from policies.base import Passes, SamplingConfig, Update
from policies.exclusion import Exclusion
from policies.families.base import Family
from policies.families.messages import Message, Platform, message
from policies.families.reply import Reply
from policies.families.session import Draw, ProtocolSession, description, read_reply
from policies.families.settings import FamilySettings
from policies.generation import Generation, Request, Search
from policies.learner import HeadLearner
from policies.marks import coordinate_tokens, frame_tokens
from policies.prior.policy import StartingPolicy
from policies.prior.session import StartingSession
from policies.sampling import seed_of


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
        prompt = self.engine.prompt([message("user", text)], self.settings.min_pixels, self.settings.max_pixels)
        return self.engine.submit(Request(prompt, SamplingConfig(max_new_tokens=max_new_tokens), seed=0)).text

    def describe(self) -> dict[str, Any]:
        return description(self.family, self.settings, self.platform)

    def memory(self) -> dict[str, float]:
        if self._engine is None or self._engine.device.type != "cuda":
            return {}
        peaks = [
            torch.cuda.max_memory_allocated(number) for number in range(torch.cuda.device_count())
        ]  # it may be spread over several
        return {"gpu_peak": sum(peaks) / 2**20}

    def close(self) -> None:
        self._engine = None


class ModelSession(ProtocolSession, StartingSession):
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
        self.engine = policy.engine
        self.learner = learner
        self._replies: list[Tensor] = []  # y of every step of the attempt, for scoring it under another prompt

    # -- acting ------------------------------------------------------------------------------------------------------------------
    def begin(self, instruction: str, *, guidance: str = "", attempt: int = 1) -> None:
        super().begin(instruction, guidance=guidance, attempt=attempt)
        self._forget()
        self.engine.enter(id(self))

    def _draw(self, messages: list[Message], sampling: SamplingConfig, seed: int) -> Draw:
        prompt = self.engine.prompt(messages, self.settings.min_pixels, self.settings.max_pixels)
        reply = self.engine.submit(Request(prompt, sampling, seed, self.adapter, capture=self.learner is not None))
        return self._drawn(reply, prompt.images[-1].size)

    def _draw_untried(
        self, messages: list[Message], tried: Sequence[tuple[Action, ...]], size: tuple[int, int], step: int
    ) -> list[tuple[Draw, Reply]]:
        first = self.sampling.first_greedy and self.attempt == 1
        if first or not (self.sampling.next_best or (self.sampling.no_repeat and self.engine.has_trees)):
            return super()._draw_untried(messages, tried, size, step)
        prompt = self.engine.prompt(messages, self.settings.min_pixels, self.settings.max_pixels)
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
        draw = self._drawn(found, seen)
        return [(draw, self._read(draw, size))]

    def _spellings(self, any_tried: bool) -> tuple[tuple[int, ...], ...]:
        """Tokens of the action parts of earlier replies, if any action was tried on this screen."""
        if not any_tried:
            return ()
        found: dict[tuple[int, ...], None] = {}
        for text in dict.fromkeys([*self._texts, *(text for _, text in self.history)]):
            tokens = self.engine.tokens(text)
            found.setdefault(tuple(tokens[self._action_at(self.engine.pieces(tokens)) :].tolist()))
        return tuple(found)

    def _action_at(self, pieces: Sequence[str]) -> int:
        """The token with which the action part of a reply begins, by the texts of its tokens."""
        text = "".join(pieces)
        _, action_text = self.family.split(text)
        at = text.rfind(action_text) if action_text else 0
        ends = itertools.accumulate(map(len, pieces))
        return next((n for n, end in enumerate(ends) if end > at), 0)

    @staticmethod
    def _drawn(reply: Generation, seen: tuple[int, int]) -> Draw:
        """A reply to a screenshot that the model saw at the size ``seen``."""
        logprobs = tuple(round(value, 6) for value in reply.logprobs.tolist())
        known = tuple(reply.tokens.tolist()), logprobs, reply.passes
        total = reply.drawn_tokens or len(reply.tokens)
        return Draw(reply.text, total, float(reply.logprobs.sum()), seen, reply, *known, reply.redrawn, reply.redrawn_unparsable)

    def _keep(self, draw: Draw, step: int) -> None:
        reply: Generation = draw.extra
        if self.learner is None or reply.hidden is None:
            return
        self.learner.record(reply.hidden, reply.tokens, step, **self._marks(reply.tokens))
        self._replies.append(reply.tokens)

    def relive(self, steps: Sequence[tuple[Observation, str]], tokens: Sequence[Sequence[int]] = ()) -> list[float]:
        """See :meth:`policies.base.PolicySession.relive`.  A text that is tokenized again may differ from what was drawn."""
        found = []
        drawn = list(tokens) or [()] * len(steps)
        for number, (observation, text) in enumerate(steps):
            screen = Image.fromarray(picture(observation))
            prompt = self.engine.prompt(self.messages(screen), self.settings.min_pixels, self.settings.max_pixels)
            y = self.engine.known(drawn[number]) if drawn[number] else self.engine.tokens(text)
            score = self.engine.score(prompt, y, self.adapter)
            found.append(float(score.logprobs.sum()))
            reply = Generation(text, y, score.hidden, score.logprobs, "stop", 0)
            self._keep(Draw(text, len(y), found[-1], prompt.images[-1].size, reply), number)
            self.history.append((screen, text))
        return found

    def resume(self, steps: Sequence[tuple[Observation, str]], capture: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Go on after an attempt as if this session had made it, nothing computed again: call after :meth:`begin`.

        Args:
            steps: (observation, reply) per step.
            capture: (H [n, d], y [n]) per step, as :meth:`policies.learner.HeadLearner.capture` gave them.
        """
        for number, ((observation, text), (hidden, tokens)) in enumerate(zip(steps, capture, strict=True)):
            screen = Image.fromarray(picture(observation))
            reply = Generation(text, tokens, hidden, torch.zeros(0), "stop", 0)
            self._keep(Draw(text, len(tokens), None, screen.size, reply), number)
            self.history.append((screen, text))

    # -- learning ----------------------------------------------------------------------------------------------------------------
    def adapt(self, rewards: Sequence[float], *, refined: str | None = None, guidance: str | None = None) -> Update | None:
        """See :meth:`policies.base.PolicySession.adapt`.

        With ``refined`` guidance, the attempt is also scored under it in a teacher-forced pass per step (ROSA2 Theorem 4.1), and
        the update's numbers get the entries ``raw`` and ``refined``.
        """
        self.engine.leave(id(self))
        if self.learner is None:
            return None
        try:
            numbers = None if refined is None else self._error_terms(refined, rewards)
            guided = None if not guidance else self._under(guidance).capture()
            update = self._with_pieces(self.learner.update(rewards, guided))
            scored = len(self._replies) * ((refined is not None) + (guided is not None))
            update = dataclasses.replace(update, passes=Passes(scored, scored))
        finally:
            self._forget()
        return update if numbers is None else dataclasses.replace(update, numbers={**update.numbers, **numbers})

    def _error_terms(self, guidance: str, rewards: Sequence[float]) -> dict[str, Any]:
        """‖R‖ and ‖Δθ‖² of ROSA2 Theorem 4.1, in the attempt's own context (``raw``) and under ``guidance`` (``refined``).

        Numbers for the record only: if they are unavailable, the record says why, and the update is still made.
        """
        assert self.learner is not None
        try:
            # Of a copy, whose capture is dropped: that of the attempt itself stays.
            raw = copy.copy(self.learner).residual(rewards)
            return {"raw": raw, "refined": self._under(guidance).residual(rewards)}
        except (AdaptationError, PolicyError) as error:
            return {"refined": {"error": error.message}}

    def _under(self, guidance: str) -> HeadLearner:
        """A copy of the learner with the attempt's replies as they look under ``guidance``: a teacher-forced pass per step."""
        assert self.learner is not None
        scratch = copy.copy(self.learner)
        scratch.discard()  # of the copy: the capture of the attempt itself stays
        for step, tokens in enumerate(self._replies):
            messages = self.messages(self.history[step][0], guidance=guidance, step=step)
            prompt = self.engine.prompt(messages, self.settings.min_pixels, self.settings.max_pixels)
            score = self.engine.score(prompt, tokens, self.learner.adapter)
            scratch.record(score.hidden, tokens, step, **self._marks(tokens))
        return scratch

    def _with_pieces(self, update: Update) -> Update:
        """The update with the texts of its tokens."""
        replies = [dataclasses.replace(r, pieces=tuple(self.engine.pieces(self._replies[r.step]))) for r in update.replies]
        return dataclasses.replace(update, replies=tuple(replies))

    def _marks(self, tokens: Tensor) -> dict[str, Tensor]:
        """What the method of the weights needs to know of a reply's tokens besides H."""
        marks: dict[str, Tensor] = {}
        if self.learner is None:
            return marks
        if self.learner.wants_coordinates:
            marks["coordinates"] = coordinate_tokens(self.engine.pieces(tokens))
        if self.learner.wants_frame:
            ends = torch.tensor([token in self.engine.stop_ids for token in tokens.tolist()])
            marks["frame"] = ends | frame_tokens(self.engine.pieces(tokens))
        return marks

    def discard(self) -> None:
        super().discard()
        self._forget()
        self.engine.leave(id(self))

    def _forget(self) -> None:
        self._replies = []
        if self.learner is not None:
            self.learner.discard()

    def rollback(self) -> None:
        self._learner().rollback()

    def save_adapter(self, folder: Path) -> bool:
        return self.learner.save(folder) if self.learner is not None else False

    def load_adapter(self, folder: Path) -> None:
        self._learner().load(folder)

    def _learner(self) -> HeadLearner:
        if self.learner is None:
            raise UsageError("This session adapts no weights.", "Open it with a weight adaptation.")
        return self.learner

    def close(self) -> None:
        super().close()
        self.engine.leave(id(self))
        self._forget()
        self.learner = None
