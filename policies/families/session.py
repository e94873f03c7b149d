"""One task under a family's protocol: the history of an attempt, drawing a reply, and reading it."""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image

from envs.actions import Action, Invalid
from envs.base import Observation, TaskSpec, picture
from envs.errors import InvalidActionError, UsageError
from policies.base import NO_PASSES, Decision, Passes, PolicySession
from policies.families.base import Family, Turn
from policies.families.messages import Message, Platform
from policies.families.registry import families
from policies.families.reply import MAX_CHARACTERS, Frame, Reply, is_thinking, pointer_after
from policies.families.settings import FamilySettings, seen_size
from policies.sampling import MAX_REDRAWS, SamplingConfig, seed_of
from policies.tried import TriedActions, alike, look_at

DEVICES: dict[Platform, str] = {"computer": "computer", "mobile": "phone"}
REDRAW_TEMPERATURE = 1.0


class Draw(NamedTuple):
    """A reply as drawn.

    Attributes:
        text: The reply.
        tokens: Generated tokens.
        logprob: Sum of their log-probabilities, if known.
        size: (width, height) of the current screenshot as the model saw it.
        extra: What the subclass wants back in :meth:`ProtocolSession._keep`.
        cut: It ran out of tokens.
        thinking: It did so inside a thought that its template had begun.
        token_ids, token_logprobs, passes, redrawn, redrawn_unparsable: As in :class:`policies.base.Decision`.
    """

    text: str
    tokens: int
    logprob: float | None
    size: tuple[int, int]
    extra: Any = None
    token_ids: tuple[int, ...] = ()
    token_logprobs: tuple[float, ...] = ()
    passes: Passes = NO_PASSES
    redrawn: int = 0
    redrawn_unparsable: int = 0
    cut: bool = False
    thinking: bool = False


class ProtocolSession(PolicySession):
    """Everything of a session except where replies come from (:meth:`_draw`)."""

    def __init__(
        self,
        task: TaskSpec,
        *,
        seed: int,
        family: Family,
        settings: FamilySettings,
        sampling: SamplingConfig,
        factor: int,
        platform: Platform | None,
    ) -> None:
        """``factor``: what the model's pictures have sides of multiples of."""
        self.task, self.seed, self.family, self.settings, self.sampling = task, seed, family, settings, sampling
        self.factor = factor
        self.platform = platform or platform_of(task)
        if self.platform not in family.platforms:
            raise UsageError(
                f"{family.title} has no prompt for a {DEVICES[self.platform]}.",
                f"Families that have one: {', '.join(n for n, f in families().items() if self.platform in f.platforms)}.",
            )
        self._pointer: tuple[float, float] | None = None
        self._pointers: list[tuple[float, float] | None] = []  # where it was before each step of this attempt
        self.instruction = self.guidance = ""
        self.attempt = 0
        self.history: list[tuple[Image.Image, str]] = []
        self._tried = TriedActions(sampling.radius)
        self._texts: list[str] = []  # every reply of earlier attempts

    @abc.abstractmethod
    def _draw(self, messages: list[Message], sampling: SamplingConfig, seed: int) -> Draw:
        """One reply to a conversation."""

    def _keep(self, draw: Draw, step: int) -> None:
        """``draw`` is the reply of step ``step`` (0-based) of this attempt."""

    def begin(self, instruction: str, *, guidance: str = "", attempt: int = 1) -> None:
        # A void attempt is begun again under its own number, which forgets what it tried.  (Not in `discard`: the machinery may
        # break before an attempt begins, when what was tried last still is the finished attempt's.)
        self._tried.begin(again=attempt <= self.attempt)
        if attempt > self.attempt:
            self._texts += [text for _, text in self.history]
        self.instruction, self.guidance, self.attempt = instruction, guidance, attempt
        self.history, self._pointers = [], []
        self._pointer = None

    def recall(self, steps: Sequence[tuple[Observation, tuple[Action, ...]]]) -> None:
        self._tried.recall([(look_at(picture(observation)), actions) for observation, actions in steps])

    def recall_replies(self, steps: Sequence[tuple[Observation, str]]) -> None:
        if steps:
            self._tried.first(look_at(picture(steps[0][0])))
        self._texts += [text for _, text in steps]

    def blame(self, credit: Sequence[float]) -> None:
        self._tried.blame(credit)

    def act(self, observation: Observation) -> Decision:
        if self.attempt == 0:
            raise UsageError("act() before begin().", "Call begin(instruction) first.")
        started = time.perf_counter()
        screenshot = picture(observation)
        screen, step = Image.fromarray(screenshot), len(self.history)
        look = look_at(screenshot) if self.sampling.remembers else None
        if look is not None and step == 0:
            self._tried.first(look)
        drawn = self._draw_untried(self.messages(screen), () if look is None else self._tried.on(look), screen.size, step)
        draw, reply = next((d for d in reversed(drawn) if d[1].parsable), drawn[-1])
        if look is not None:
            self._tried.add(look, reply.actions)
        self._keep(draw, step)
        self._went_on(screen, draw.text, reply)
        tokens = sum(d.tokens for d, _ in drawn)
        unparsable = sum(not r.parsable for _, r in drawn) - (not reply.parsable)
        unparsable += draw.redrawn_unparsable
        decision = _decision(draw, reply, tokens, time.perf_counter() - started)
        passes = sum((d.passes for d, _ in drawn), NO_PASSES)
        return dataclasses.replace(decision, redrawn=len(drawn) - 1 + draw.redrawn, redrawn_unparsable=unparsable, passes=passes)

    def _went_on(self, screen: Image.Image, text: str, reply: Reply) -> None:
        """The step is done: the next one begins where it left the pointer."""
        self._pointers.append(self._pointer)
        self._pointer = pointer_after(reply.actions, self._pointer)
        self.history.append((screen, text))

    def _draw_untried(
        self, messages: list[Message], tried: Sequence[tuple[Action, ...]], size: tuple[int, int], step: int
    ) -> list[tuple[Draw, Reply]]:
        """Every reply drawn for a step: one, or until one is an action (``reask``), or none of the ``tried`` (``no_repeat``)."""
        first = self.sampling.first_greedy and self.attempt == 1
        temperature = 0.0 if first else self.sampling.temperature
        limit = min(self.sampling.max_new_tokens, self.settings.max_new_tokens)
        drawn: list[tuple[Draw, Reply]] = []
        redraws = 0 if first or not self.sampling.no_repeat else MAX_REDRAWS
        for index in range(max(redraws, self.settings.reask) + 1):
            warm = temperature or (REDRAW_TEMPERATURE if index and redraws else 0.0)  # a greedy redraw would give the same reply
            if index and not drawn[-1][1].parsable:
                warm = max(warm, self.settings.reask_temperature)
            sampling = dataclasses.replace(self.sampling, temperature=warm, max_new_tokens=limit)
            draw = self._draw(messages, sampling, seed_of(self.seed, self.task.id, self.attempt, step, index))
            reply = self._read(draw, size, self._pointer)
            drawn.append((draw, reply))
            # A reply that is not an action does nothing: it leaves the screen as it is, which need not be tried.
            if self._is_new(reply, tried, size) if index < redraws else reply.parsable:
                break
        return drawn

    def _is_new(self, reply: Reply, tried: Sequence[tuple[Action, ...]], size: tuple[int, int]) -> bool:
        """Whether a reply to a screen of this size is an action, and none of those that were tried."""
        radius = self.sampling.radius * min(size)
        return reply.parsable and not any(alike(reply.actions, other, radius) for other in tried)

    def propose(self) -> list[Decision]:
        limit = min(self.sampling.max_new_tokens, self.settings.max_new_tokens)
        greedy = dataclasses.replace(self.sampling, temperature=0.0, max_new_tokens=limit)
        found = []
        for step, (screen, _) in enumerate(self.history):
            started = time.perf_counter()
            draw = self._draw(self.messages(screen, step=step), greedy, 0)
            reply = self._read(draw, screen.size, self._pointers[step])
            found.append(_decision(draw, reply, draw.tokens, time.perf_counter() - started))
        return found

    def messages(self, screen: Image.Image, *, guidance: str | None = None, step: int | None = None) -> list[Message]:
        """The conversation of the next reply, or of reply ``step`` of this attempt; under other guidance if given."""
        history = self.history if step is None else self.history[:step]
        return self.family.messages(
            Turn(
                instruction=self.instruction,
                guidance=self.guidance if guidance is None else guidance,
                history=history,
                screen=screen,
                seen=seen_size(screen.size, self.settings, self.factor),
                settings=self.settings,
                platform=self.platform,
            )
        )

    def _read(self, draw: Draw, size: tuple[int, int], pointer: tuple[float, float] | None) -> Reply:
        thinking = draw.thinking or any(is_thinking(draw.text, tag) for tag in ("think", "thinking"))
        if draw.cut and thinking:  # a call that it drafts there is not done
            return Reply(draw.text[:MAX_CHARACTERS], "", (Invalid("The reply ran out of tokens inside its thought."),))
        return read_reply(self.family, draw.text, size, draw.size, self.settings, self.platform, pointer, cut=draw.cut)

    def close(self) -> None:
        self.history, self._pointers = [], []


def description(family: Family, settings: FamilySettings, platform: Platform | None) -> dict[str, Any]:
    """What a run records of how its policy is asked."""
    sources = {device: str(family.source_of(device) or "") for device in family.platforms if platform in (None, device)}
    return {"family": family.name, **settings.model_dump(), "prompt_source": sources}


def read_reply(
    family: Family,
    text: str,
    screen: tuple[int, int],
    seen: tuple[int, int],
    settings: FamilySettings,
    platform: Platform,
    pointer: tuple[float, float] | None = None,
    *,
    cut: bool = False,
) -> Reply:
    """A reply to a screenshot of the size ``screen`` that the model saw at the size ``seen``; Invalid if it is not an action."""
    try:
        return family.parse(text, Frame(*screen, *family.units(screen, seen, settings), pointer, platform, cut))
    except InvalidActionError as error:
        thought, action_text = family.split(text[:MAX_CHARACTERS])
        return Reply(thought, action_text, (Invalid(error.message),))


def _decision(draw: Draw, reply: Reply, tokens: int, seconds: float) -> Decision:
    return Decision(
        text=draw.text,
        actions=reply.actions,
        thought=reply.thought,
        action_text=reply.action_text,
        tokens=tokens,
        seconds=seconds,
        logprob=draw.logprob,
        token_ids=draw.token_ids,
        token_logprobs=draw.token_logprobs,
    )


def platform_of(task: TaskSpec) -> Platform:
    """``mobile`` for AndroidWorld, ``computer`` for everything else."""
    return "mobile" if "android" in task.env_id.lower() else "computer"
