"""A checkpoint of a known family, on an engine in this process or a server."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from envs.base import Observation, TaskSpec, picture
from envs.errors import AdaptationError, PolicyError, UsageError
from policies.backbone import SeeingBackbone
from policies.base import SamplingConfig, Update
from policies.families.base import Family
from policies.families.messages import Message, Platform, message
from policies.families.session import Draw, ProtocolSession, description
from policies.families.settings import FamilySettings
from policies.generation import Generation, Request
from policies.learner import HeadLearner
from policies.prior.policy import StartingPolicy
from policies.prior.session import StartingSession


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
        logprob, size = float(reply.logprobs.sum()), prompt.images[-1].size
        logprobs = tuple(round(value, 6) for value in reply.logprobs.tolist())
        return Draw(reply.text, len(reply.tokens), logprob, size, reply, tuple(reply.tokens.tolist()), logprobs)

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
    def adapt(self, rewards: Sequence[float], *, refined: str | None = None) -> Update | None:
        """See :meth:`policies.base.PolicySession.adapt`.

        With ``refined`` guidance, the attempt is also scored under it in a teacher-forced pass per step (ROSA2 Theorem 4.1), and
        the update's numbers get the entries ``raw`` and ``refined``.
        """
        self.engine.leave(id(self))
        if self.learner is None:
            return None
        try:
            numbers = None if refined is None else self._error_terms(refined, rewards)
            update = self._with_pieces(self.learner.update(rewards))
        finally:
            self._forget()
        return update if numbers is None else dataclasses.replace(update, numbers={**update.numbers, **numbers})

    def _error_terms(self, guidance: str, rewards: Sequence[float]) -> dict[str, Any]:
        """‖R‖ and ‖Δθ‖² of ROSA2 Theorem 4.1, in the attempt's own context (``raw``) and under ``guidance`` (``refined``).

        Numbers for the record only: if they are unavailable, the record says why, and the update is still made.
        """
        assert self.learner is not None
        scratch = copy.copy(self.learner)
        try:
            raw = scratch.residual(rewards)  # the copy's capture is dropped: that of the attempt itself stays
            self._rescore(scratch, guidance)
            return {"raw": raw, "refined": scratch.residual(rewards)}
        except (AdaptationError, PolicyError) as error:
            return {"refined": {"error": error.message}}

    def _rescore(self, scratch: HeadLearner, guidance: str) -> None:
        """Record the attempt's replies once more, as they look under ``guidance``: a teacher-forced pass per step."""
        assert self.learner is not None
        for step, tokens in enumerate(self._replies):
            messages = self.messages(self.history[step][0], guidance=guidance, step=step)
            prompt = self.engine.prompt(messages, self.settings.min_pixels, self.settings.max_pixels)
            score = self.engine.score(prompt, tokens, self.learner.adapter)
            scratch.record(score.hidden, tokens, step, **self._marks(tokens))

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


_PARTS = re.compile(r"^\s*Thought:|(?:^|\n)\s*Action:|</?(?:tool_call|action|think|thinking|thought|answer)>|```\w*")
_POINT = re.compile(r"[(\[>]\s*-?\d[\d\s,.\-]*[)\]<]|\b[xy]\s{0,4}=\s{0,4}\d+(?:\.\d+)?")
_ACTION_TAGS = ("<tool_call>", "<action>")


def coordinate_tokens(pieces: Sequence[str]) -> Tensor:
    """True where a token writes digits of a point in the action part of a reply: [T] bool.  ``pieces``: the text of each token."""
    text = "".join(pieces)
    action = next((at for mark in _ACTION_TAGS if (at := text.find(mark)) >= 0), -1)
    if action < 0:
        fence = text.rfind("```", 0, max(text.rfind("```"), 0))
        action = fence if fence >= 0 else max(text.rfind("Action"), 0)
    return _touching(pieces, {i for m in _POINT.finditer(text, action) for i in range(m.start(), m.end()) if text[i].isdigit()})


def frame_tokens(pieces: Sequence[str]) -> Tensor:
    """True where a token writes what separates the parts of a reply (``Thought:``, ``Action:``, tags, code fences): [T] bool."""
    return _touching(pieces, {i for m in _PARTS.finditer("".join(pieces)) for i in range(m.start(), m.end())})


def _touching(pieces: Sequence[str], characters: set[int]) -> Tensor:
    """True where a token writes one of these characters of the text, [T] bool."""
    ends = list(itertools.accumulate(map(len, pieces)))
    return torch.tensor(
        [any(i in characters for i in range(end - len(piece), end)) for piece, end in zip(pieces, ends, strict=True)]
    )
