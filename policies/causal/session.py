"""A session of a chat model: the conversation, what was answered, and a head adapter if the weights adapt."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from envs.actions import Action, Answer, Finished, Invalid
from envs.answer_forms import normal_form, told_apart
from envs.answer_hints import could_be, spoken
from envs.answers import after_thought
from envs.base import Observation, TaskSpec
from envs.errors import UsageError
from policies.backbone import ReadingBackbone
from policies.base import NO_PASSES, Decision, Passes, PastAttempt
from policies.causal.replies import beginning, joined, says_something, thought_tokens, turn
from policies.causal.settings import CausalSettings
from policies.causal.thinking import ThinkingSession
from policies.exclusion import Exclusion
from policies.generation import Generation, Prompt, Search
from policies.learner import HeadLearner
from policies.prompts import ChatMessage
from policies.sampling import MAX_REDRAWS, SamplingConfig, seed_of
from policies.thoughts import thinks_on
from policies.tried import blamed

REDRAW_TEMPERATURE = 1.0

FORMATS = {
    "math": "Please reason step by step, and put your final answer within \\boxed{}.",
    "number": "Put your final answer within \\boxed{}.",
    "word": "Put your final answer within \\boxed{}.",
    "list": "Put your final answer within \\boxed{}.",
    "bool": "Put your final answer within \\boxed{}.",
    "choice": "Put the letter of the right option within \\boxed{}.",
    "code": "Give the complete code in one ```python block.",
}
"""How an answer is to be given, by the task's kind."""


class CausalSession(ThinkingSession):
    """One task: the conversation, and a head adapter if the weights adapt.

    In a conversation (``history=conversation``) the next user turn is x*: the guidance where words were learned, else what the user
    said to the failed attempt, else nothing.  Fresh, the question stands alone with the guidance after it.
    """

    def __init__(
        self,
        engine: ReadingBackbone,
        task: TaskSpec,
        *,
        settings: CausalSettings,
        sampling: SamplingConfig,
        seed: int,
        learner: HeadLearner | None,
    ) -> None:
        super().__init__()
        self.engine = engine
        self._learn_with(learner)
        self.task, self.seed, self.settings, self.sampling = task, seed, settings, sampling
        self.instruction = self.guidance = ""
        self.attempt = 0
        self.past: tuple[PastAttempt, ...] = ()
        self.history: list[tuple[str, str]] = []  # (what the environment said, reply) of this attempt
        self._begun = False  # the prompt begins the reply's thought
        self._said: set[str] = set()
        self._said_now: list[str] = []  # one per reply of this attempt
        self._texts: list[str] = []  # every reply of earlier attempts
        self._texts_now: list[str] = []
        self._hints: list[tuple[str, str]] = []  # (answer, what the user said of it), see ``consistent``
        self._hints_now: list[tuple[str, str]] = []  # of this attempt, which may turn out not to count
        self._own_examples: tuple[tuple[str, str], ...] = ()  # solved by earlier sessions, after those that the task brings

    # -- the conversation --------------------------------------------------------------------------------------------------------
    def show(self, examples: Sequence[tuple[str, str]]) -> None:
        self._own_examples = tuple(examples)

    def converse(self, history: Sequence[PastAttempt]) -> None:
        self.past = tuple(history)

    def begin(self, instruction: str, *, guidance: str = "", attempt: int = 1) -> None:
        if attempt > self.attempt:
            self._said |= set(self._said_now)
            self._texts += self._texts_now
            self._hints += self._hints_now
        self._said_now, self._texts_now, self._hints_now = [], [], []
        self.instruction, self.guidance, self.attempt = instruction, guidance, attempt
        self.past = self.past if attempt > 1 else ()
        self.history = []
        self._forget()
        self.engine.enter(id(self))

    def prepare(
        self,
        observation: Observation,
        instruction: str,
        *,
        guidance: str = "",
        attempt: int = 1,
        history: Sequence[PastAttempt] = (),
    ) -> Passes:
        coming = copy.copy(self)
        coming.instruction, coming.guidance, coming.attempt = instruction, guidance, attempt
        coming.past, coming.history = tuple(history), []
        return self.engine.read(coming._prompt(coming.messages(observation.get("text", ""))))

    def recall(self, steps: Sequence[tuple[Observation, tuple[Action, ...]]]) -> None:
        self._said |= {self._key(actions) for _, actions in steps}

    def recall_replies(self, steps: Sequence[tuple[Observation, str]]) -> None:
        self._texts += [text for _, text in steps]

    def blame(self, credit: Sequence[float]) -> None:
        self._said_now = blamed(self._said_now, credit)

    def heed(self, feedback: str) -> None:
        replies = self._texts_now or self._texts
        form = self._form(replies[-1]) if replies and self.sampling.consistent else None
        if form is not None and (hint := spoken(self._kind, feedback)):
            self._hints_now.append((form, hint))

    def messages(self, observation: str, *, guidance: str | None = None, step: int | None = None) -> list[ChatMessage]:
        """The conversation of the next reply, or of reply ``step`` of this attempt; under other guidance if given."""
        guidance = self.guidance if guidance is None else guidance
        found: list[ChatMessage] = []
        if self.settings.system is not None:
            found.append({"role": "system", "content": self.settings.system})
        for question, answer in (*self.task.options.get("examples", ())[: self.settings.shots], *self._own_examples):
            found += turn("user", question), turn("assistant", answer)
        if self.past:
            found += self._earlier()
            found.append(turn("user", guidance.strip() or self.past[-1].feedback))
        else:
            found.append(turn("user", self._question(guidance)))
        history = self.history if step is None else self.history[:step]
        for number, (said, reply) in enumerate(history):
            if number:
                found.append(turn("user", said))
            found.append(turn("assistant", reply))
        if history:
            found.append(turn("user", observation))
        return found

    def _earlier(self) -> list[ChatMessage]:
        """H_{t-1}: the question, and every earlier attempt's replies after the turn that they answer."""
        found = [turn("user", self._question(self.past[0].guidance))]
        for number, attempt in enumerate(self.past):
            if number:
                found.append(turn("user", attempt.guidance.strip() or self.past[number - 1].feedback))
            for number_, (seen, reply) in enumerate(attempt.turns):
                if number_:
                    found.append(turn("user", seen.get("text", "")))
                found.append(turn("assistant", after_thought(reply) or reply))
        return found

    def _question(self, guidance: str) -> str:
        parts = [self.instruction]
        if guidance.strip():
            parts.append(f"Keep in mind:\n{guidance.strip()}")
        wanted = FORMATS.get(self._kind)
        if self.settings.instruct and wanted:
            parts.append(wanted)
        return "\n\n".join(parts)

    # -- acting ------------------------------------------------------------------------------------------------------------------
    def act(self, observation: Observation) -> Decision:
        if self.attempt == 0:
            raise UsageError("act() before begin().", "Call begin(instruction) first.")
        started = time.perf_counter()
        said, step = observation.get("text", ""), len(self.history)
        prompt = self._prompt(self.messages(said))
        self._begun = thinks_on(prompt, "")
        first = self.sampling.first_greedy and self.attempt == 1
        if self.sampling.next_best and not first:
            best = self._next_best(prompt)
            drawn = [(best, self._read(best))]
        else:
            drawn = self._draw_new(prompt, step, first)
        reply, actions = next((d for d in reversed(drawn) if not isinstance(d[1][0], Invalid)), drawn[-1])
        self._said_now.append(self._key(actions))
        self._texts_now.append(reply.text)
        self._record(reply)
        self.history.append((said, reply.text))
        unparsable = sum(isinstance(a[0], Invalid) for _, a in drawn) - isinstance(actions[0], Invalid)
        decision = self._decision(reply, actions, time.perf_counter() - started)
        return dataclasses.replace(
            decision,
            tokens=sum(r.drawn_tokens or len(r.tokens) for r, _ in drawn),
            redrawn=len(drawn) - 1 + reply.redrawn,
            redrawn_unparsable=unparsable + reply.redrawn_unparsable,
            passes=sum((r.passes for r, _ in drawn), NO_PASSES),
        )

    def _draw_new(self, prompt: Prompt, step: int, first: bool) -> list[tuple[Generation, tuple[Action, ...]]]:
        """Every reply drawn: one, or with ``no_repeat`` until one has an answer that was not given yet."""
        if self.sampling.no_repeat and not first and self.engine.has_trees and self.settings.thought_tokens is None:
            seed = seed_of(self.seed, self.task.id, self.attempt, step, 0)
            reply = self._draw(prompt, self.sampling.temperature, seed, self._exclusion())
            return [(reply, self._read(reply))]
        drawn: list[tuple[Generation, tuple[Action, ...]]] = []
        for index in range(1 if first or not self.sampling.no_repeat else MAX_REDRAWS + 1):
            warm = 0.0 if first else self.sampling.temperature or (REDRAW_TEMPERATURE if index else 0.0)
            reply = self._draw(prompt, warm, seed_of(self.seed, self.task.id, self.attempt, step, index))
            actions = self._read(reply)
            drawn.append((reply, actions))
            fresh = self._key(actions) not in self._said.union(self._said_now) and self._could_be(reply.text)
            if fresh and self._is_an_answer(reply.text) and not isinstance(actions[0], Invalid):
                break
        return drawn

    def _exclusion(self) -> Exclusion:
        """The answers that were given, not to be drawn again."""
        tried = self._said.union(self._said_now)
        spellings = dict.fromkeys(self._spelling(text) for text in self._texts)
        return Exclusion(
            lambda text: self._is_an_answer(text) and self._key((Answer(text),)) not in tried and self._could_be(text),
            says_something,
            thought_tokens,
            tuple(spellings),
        )

    def _spelling(self, text: str) -> tuple[int, ...]:
        """Tokens of an answer given earlier, without the thought before it."""
        tokens = self.engine.tokens(text)
        return tuple(tokens[thought_tokens(self.engine.pieces(tokens)) :].tolist())

    def _next_best(self, prompt: Prompt) -> Generation:
        """The most probable reply with an answer that was not given yet; of a thinking model, after its most probable thought."""
        thought: Generation | None = None
        said, limit = "", self._limit()
        if self._thinks(prompt):
            drawn = self._draw(prompt, 0.0, 0)
            if thinks_on(prompt, drawn.text):
                return drawn
            end = drawn.given[1] or thought_tokens(self.engine.pieces(drawn.tokens))  # all that was put there is the thought's
            said = self.engine.said(drawn.tokens[:end])
            thought, prompt = beginning(drawn, end, said), Prompt(prompt.text + said, ())
            limit = self._room_after(thought)
            if limit <= 0:
                return drawn
        tried = self._said.union(self._said_now)

        def counts(text: str) -> bool:
            whole = said + text  # by itself, an answer to a prompt that begins the thought would pass for one within it
            return self._is_an_answer(whole) and self._key((Answer(whole),)) not in tried and self._could_be(whole)

        answer = self.engine.submit(Search(prompt, counts, self.sampling.beams, limit, self.adapter, self.learner is not None))
        return answer if thought is None else joined(thought, answer)

    def _prompt(self, messages: list[ChatMessage]) -> Prompt:
        return self.engine.chat(messages, **self.settings.template())

    def _prompt_under(self, guidance: str, step: int) -> Prompt:
        return self._prompt(self.messages(self.history[step][0], guidance=guidance, step=step))

    def _read(self, reply: Generation) -> tuple[Action, ...]:
        if reply.finish == "length":
            return (Invalid(f"The reply had not ended after {len(reply.tokens)} tokens."),)
        if self._in_thought(reply.text):
            return (Invalid("The thought had not ended."),)
        if not reply.text.strip():
            return (Invalid("The reply is empty."),)
        return (Answer(reply.text),)

    @property
    def _kind(self) -> str:
        return str(self.task.options.get("kind", ""))

    def _form(self, text: str) -> str | None:
        """A reply's answer as its question's grader reads it; None if it has none."""
        return normal_form(self._kind, text, self.task.options.get("choices", ()))

    def _told_apart(self, text: str) -> str | None:
        return told_apart(self._kind, text, self.task.options.get("choices", ()))

    def _is_an_answer(self, text: str) -> bool:
        """Whether a reply has an answer that its question's grader would compare."""
        return bool(text.strip()) and not self._in_thought(text) and self._told_apart(text) is not None

    def _in_thought(self, text: str) -> bool:
        return self._begun and after_thought(f"<think>{text}") is None

    def _could_be(self, text: str) -> bool:
        """Whether what the user said of earlier answers leaves a reply's answer open."""
        hints = (*self._hints, *self._hints_now)
        form = self._form(text) if hints else None
        return form is None or all(could_be(self._kind, form, said, hint) for said, hint in hints)

    def _key(self, actions: tuple[Action, ...]) -> str:
        """Equal for replies with the same final answer."""
        last = actions[-1] if actions else None
        if not isinstance(last, Answer | Finished):
            return ""
        form = self._told_apart(last.text)
        return " ".join(last.text.split()).casefold() if form is None else form

    def _decision(self, reply: Generation, actions: tuple[Action, ...], seconds: float) -> Decision:
        rest = after_thought(reply.text)
        spoken = reply.text if rest is None else rest
        return Decision(
            text=reply.text,
            actions=actions,
            thought="" if rest is None or rest == reply.text else reply.text[: len(reply.text) - len(rest)],
            action_text=spoken.strip(),
            tokens=len(reply.tokens),
            seconds=seconds,
            logprob=float(reply.logprobs.sum()),
            token_ids=tuple(reply.tokens.tolist()),
            token_logprobs=tuple(round(value, 6) for value in reply.logprobs.tolist()),
        )

    # -- recorded attempts -------------------------------------------------------------------------------------------------------
    def relive(self, steps: Sequence[tuple[Observation, str]], tokens: Sequence[Sequence[int]] = ()) -> list[float]:
        found = []
        drawn = list(tokens) or [()] * len(steps)
        for number, (observation, text) in enumerate(steps):
            said = observation.get("text", "")
            y: Tensor = self.engine.known(drawn[number]) if drawn[number] else self.engine.tokens(text)
            score = self.engine.score(self._prompt(self.messages(said)), y, self.adapter)
            a, b = self._given_in(y)
            found.append(float(score.logprobs.sum() - score.logprobs[a:b].sum()))
            self._record(Generation(text, y, score.hidden, score.logprobs, "stop", 0, given=(a, b)))
            self.history.append((said, text))
        return found

    def resume(self, steps: Sequence[tuple[Observation, str]], capture: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Go on after an attempt as if this session had made it, nothing computed again: call after :meth:`begin`.

        ``steps``: (observation, reply) per step; ``capture``: (H [n, d], y [n]) per step, as :meth:`captured` gave them.
        """
        for (observation, text), (hidden, tokens) in zip(steps, capture, strict=True):
            self._record(Generation(text, tokens, hidden, torch.zeros(0), "stop", 0, given=self._given_in(tokens)))
            self.history.append((observation.get("text", ""), text))

    def propose(self) -> list[Decision]:
        found = []
        for step in range(len(self.history)):
            started = time.perf_counter()
            prompt = self._prompt_under(self.guidance, step)
            self._begun = thinks_on(prompt, "")
            reply = self._draw(prompt, 0.0, 0)
            found.append(self._decision(reply, self._read(reply), time.perf_counter() - started))
        return found
