"""The one entry that the attempt loop uses: a failed trace in, guidance for the next attempt and credit per step out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envs.base import Screenshot
from envs.errors import AdaptationError, InfrastructureError, PolicyError, StoreError
from retrospect import reflexion, textgrad
from retrospect.config import WordsConfig
from retrospect.credit import judge, parse_credit, rules_credit, sparse_credit
from retrospect.engines import WordsEngine, make_engine
from retrospect.evidence import Evidence, gather
from retrospect.guidance import Tried
from retrospect.methods import Failure, Revision, keep, method_named, revise, scores_steps
from retrospect.trace import Trace


@dataclass(frozen=True)
class Reflection:
    """What looking back at one failed attempt gave.

    Attributes:
        guidance: For the next attempt; the previous one if the engine failed.
        previous: What the failed attempt was made under.
        credit: r_i in [-1, 1] per step.
        distance: ||Δx||² of guidance and previous, in [0, 1]; see :func:`distance`.
        seconds: Wall-clock, the one-off import of TextGrad not included.
        requests, tokens, cost: What the engine consumed; cost in USD at the configured prices, 0 where they are unknown.
        error: Why there is no new guidance, or no credit from the engine ("" if nothing failed).
        evidence: What visibly happened.
        critique: The engine's critique (TextGrad's loss), "" if there is none.
        gradient: TextGrad's gradient, "" if there is none.
    """

    guidance: str
    previous: str
    credit: tuple[float, ...]
    distance: float
    seconds: float
    requests: int
    tokens: int
    cost: float
    error: str
    evidence: Evidence
    critique: str = ""
    gradient: str = ""

    def to_json(self) -> dict[str, Any]:
        """The record of a reflection, JSON-serialisable, evidence included."""
        fields = {name: value for name, value in vars(self).items() if name != "evidence"}
        return {**fields, "credit": list(self.credit), "evidence": self.evidence.to_json()}


class Retrospector:
    """The words axis of one session: remembers its failed attempts; one thread at a time, any number of them side by side.

    Raises:
        SetupError, UsageError: on construction, if the engine is unavailable (no key, no policy that writes text).
    """

    def __init__(self, config: WordsConfig, self_engine: Callable[[str], str] | None = None) -> None:
        self.config = config
        self._method = method_named(config.method)
        self._self_engine = self_engine
        self._attempts: list[tuple[Tried, ...]] = []
        self._memory: list[tuple[int, str]] = []
        if config.method != "none" or config.credit != "sparse":
            make_engine(config, self_engine=self_engine)

    def reflect(self, trace: Trace, *, words: bool = True, credit: tuple[float, ...] | None = None) -> Reflection:
        """Look back at a failed attempt and remember it.  Without ``words`` (``switch``) only the credit is worked out.

        ``credit`` is what somebody else has said of each step already; nobody is then asked for it here.

        A failing engine never costs the session: the guidance stays as it was and ``error`` says why.

        Raises:
            SetupError: the endpoint refuses the key or does not know the model: no later attempt would fare better.
        """
        method = self._method if words else keep
        if words:
            preload(self.config)
        started = time.perf_counter()
        evidence = gather(trace, self._attempts)
        self._attempts.append(evidence.tried())
        screenshots = _telling_screens(trace, self.config.max_images)
        engine = make_engine(self.config, self_engine=self._self_engine, screenshots=screenshots)
        errors: list[str] = []
        step = Revision(trace.guidance)
        try:
            failure = Failure(trace, evidence, self._attempts, self._memory, engine, self.config)
            step = revise(method, failure)
        except (InfrastructureError, AdaptationError, PolicyError) as error:
            errors.append(error.message)
        # Only TextGrad's critique also scores the steps; without one, a judge does.
        critique = step.critique if scores_steps(method) and self.config.credit == "critique" else None
        if step.remember:
            self._memory = [*self._memory, (trace.attempt, step.remember)][-reflexion.MEMORY :]
        if credit is None:
            credit = self._credit(evidence, critique, engine, errors)
        return Reflection(
            guidance=step.guidance,
            previous=trace.guidance,
            credit=credit,
            distance=distance(trace.guidance, step.guidance),
            seconds=time.perf_counter() - started,
            requests=engine.usage.requests if engine else 0,
            tokens=engine.usage.tokens if engine else 0,
            cost=engine.usage.cost if engine else 0.0,
            error=" ".join(errors),
            evidence=evidence,
            critique=step.critique,
            gradient=step.gradient,
        )

    def state(self) -> dict[str, Any]:
        """What a resumed session needs, JSON-serialisable."""
        return {
            "attempts": [[[t.thought, t.action_text, t.changed, t.feedback] for t in attempt] for attempt in self._attempts],
            "memory": [list(entry) for entry in self._memory],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`.

        Raises:
            StoreError: not a state that :meth:`state` has written; nothing is changed.
        """
        try:
            attempts = [
                tuple(Tried(str(t), str(a), bool(c), *map(str, f[:1])) for t, a, c, *f in attempt) for attempt in state["attempts"]
            ]
            memory = [(int(attempt), str(text)) for attempt, text in state["memory"]]
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError("The saved state of the words is damaged.", "Start this session again.") from error
        self._attempts, self._memory = attempts, memory

    def _credit(self, evidence: Evidence, critique: str | None, engine: WordsEngine | None, errors: list[str]) -> tuple[float, ...]:
        if self.config.credit == "sparse":
            return sparse_credit(len(evidence.steps))
        if engine is None:
            return rules_credit(evidence)
        credit = None
        try:
            credit = judge(evidence, engine) if critique is None else parse_credit(critique, evidence)
        except (InfrastructureError, AdaptationError, PolicyError) as error:
            errors.append(error.message)
        else:
            if credit is None:
                errors.append("The critic gave no usable credit; the rules' is used.")
        return rules_credit(evidence) if credit is None else credit


def preload(config: WordsConfig) -> None:
    """Import what the first reflection will need, so that no session waits for it.  May be called from any thread."""
    if config.method == "textgrad":
        textgrad.load()


def distance(old: str, new: str) -> float:
    """||Δx||² (ROSA2 Fig. 3): the square of the edit distance over words, divided by the number of words of the longer text.

    0 for the same words, 1 if no word stays.
    """
    a, b = old.split(), new.split()
    longer = max(len(a), len(b))
    return (_edits(a, b) / longer) ** 2 if longer else 0.0


def _edits(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein distance.  Guidance mostly grows in the middle, so equal ends are skipped first."""
    while a and b and a[0] == b[0]:
        a, b = a[1:], b[1:]
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def _telling_screens(trace: Trace, limit: int) -> list[Screenshot]:
    """At most ``limit`` screens for a critic that can see: the last ones the agent saw and the first, in order."""
    seen = [step.observation for step in trace.steps]
    if trace.ended_by != "environment":  # what a benchmark shows after the end is not for the agent's eyes
        seen.append(trace.final)
    shown = [observation["screenshot"] for observation in seen if "screenshot" in observation]
    if limit <= 0:
        return []
    return shown if len(shown) <= limit else [*shown[: limit > 1], *shown[len(shown) - limit + (limit > 1) :]]
