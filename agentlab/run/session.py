"""One task and its attempts: ROSA2 Algorithm 1 with an episode in the place of a chat turn.

    θ_1 = 0, x_1 = the task alone, H_1 = ∅                                   :meth:`LastState.restored`
    for t = 1 … T_max:                                                       :meth:`Session.run`
        ŷ_t ~ π_θt(· | H_t, x_t)        every token of a whole episode       :meth:`Session._episode`
        r_t = +1 or −1                  once, at its end; +1 is the end      :meth:`Session._attempt`
        x*_{t+1} = x_{t+1} − ∇_text L(ŷ_t)                       (line 14)   :meth:`Session._learn_words`
        θ_{t+1} = θ_t + Δθ                                       (line 17)   :meth:`Session._learn_weights`
        H_{t+1} = H_t ∪ {ŷ_t, x*}       ``history=conversation``; ∅ with ``fresh``

The unit of work, of resume and of parallelism.  What the machinery breaks is retried within bounds; it is recorded, and it is
never a reward, never adapted on, never written down as a failure of the agent.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Any

from agentlab.disk import rows
from agentlab.disk.files import disk_errors
from agentlab.disk.record import AttemptWriter
from agentlab.disk.row import Breakage, JudgeColumns, Row, UpdateColumns
from agentlab.disk.rows import Played
from agentlab.disk.store import SessionStore
from agentlab.experience.session import SessionExperience
from agentlab.run.ahead import Ready, beside
from agentlab.run.config import RunConfig
from agentlab.run.judging import Bench, decided
from agentlab.run.resuming import History, LastState, history_after
from envs.base import Environment, Observation, TaskSpec
from envs.errors import AdaptationError, InfrastructureError, SetupError
from envs.slot import Slot
from policies.base import NO_PASSES, Decision, Policy, PolicySession
from retrospect.judge import Judge
from retrospect.reflect import Retrospector
from retrospect.trace import Step, Trace


class Interrupted(Exception):
    """The run is being stopped; the attempt in flight does not count and is retried when the run is continued."""


class Session:
    """Runs the attempts of one task, from where its folder says they stopped."""

    def __init__(
        self,
        task: TaskSpec,
        *,
        config: RunConfig,
        policy: Policy,
        words: Retrospector | None,
        envs: Slot,
        store: SessionStore,
        stop: Event,
        memory: Callable[[], dict[str, float]],
        experience: SessionExperience | None = None,
        judge: Judge | None = None,
    ) -> None:
        self.task, self.config, self.policy, self.words = task, config, policy, words
        self.envs, self.store, self.stop, self.memory, self.experience = envs, store, stop, memory, experience
        self.bench = Bench.of(config, judge)
        self._ready: Ready | InfrastructureError | None = None  # of the coming attempt, made beside the last update
        self.last = LastState(config, policy, store, task, seed=derive_seed(config.seed, task.id), words=words, bench=self.bench)

    def run(self, on_row: Callable[[Row], None]) -> None:
        """Make the attempts that are missing; ``on_row`` gets the row of each as soon as it is on disk.

        Raises:
            Interrupted: ``stop`` was set.
            PolicyError, StoreError, UsageError: the run cannot go on.
        """
        made = self.store.rows()
        if rows.session_over(made):
            return
        theta, made, x, h = self.last.restored(made)
        try:
            for t in range(len(made) + 1, self.config.attempts + 1):
                row, played = self._attempt(theta, t, x, h)
                on_row(row)
                if row.session_over or played is None:
                    break
                x = played.guidance
                h = history_after(self.config, h, played.trace)
        finally:
            theta.close()

    # -- one turn of the loop --------------------------------------------------------------------------------------------------
    def _attempt(self, theta: PolicySession, t: int, x: str, h: History) -> tuple[Row, Played | None]:
        """Attempt ``t`` under guidance ``x``, with what is learned from it; its files are complete when this returns.

        Returns its row, and what it was; None if the machinery kept it from ending.
        """
        writer = AttemptWriter(self.store.start_attempt(t))
        broken: list[Breakage] = []
        started = time.perf_counter()
        known = self.words.state() if self.words is not None else {}
        while True:
            try:
                played = self._episode(theta, t, x, h, writer)  # ŷ_t
                solved = played.trace.score >= self.config.success_threshold
                rewarded = decided(played.judge, solved, alone=self.config.judged)  # r_t = +1 or −1, once, at the end
                if not rewarded and t < self.config.attempts:  # r_t = +1 or t = T_max: stop
                    self._learn(theta, played, writer, history_after(self.config, h, played.trace))
                break
            except (InfrastructureError, SetupError) as error:  # in learning too: what computes an update may be a server
                theta.discard()
                if self.words is not None:
                    self.words.load_state(known)  # it may have looked back on what turns out not to count
                self._ready = None
                if self.stop.wait(0.2):  # Ctrl-C reaches the browser too, also while it starts: the machinery has not failed
                    raise Interrupted from error
                if not isinstance(error, InfrastructureError):
                    raise
                broken.append(Breakage(component=error.component, message=error.message))
                writer.event("infrastructure", **broken[-1].model_dump())
                writer.void()
                if len(broken) > self.config.infra_retries:
                    row = rows.broken(self.task, t, x, broken, time.perf_counter() - started)
                    return self._commit(t, row), None
        over = rewarded or t == self.config.attempts
        row = rows.graded(
            self.task, played, broken, success=solved and (rewarded or not self.config.judged), rewarded=rewarded, over=over
        )
        return self._commit(t, row), played

    def _episode(self, theta: PolicySession, t: int, x: str, h: History, writer: AttemptWriter) -> Played:
        """One episode from a freshly reset task."""
        started = time.perf_counter()
        steps: list[Step] = []
        judgement: JudgeColumns | None = None
        acting = False
        try:
            env = self.envs.get(self.task)
            ready, instruction, shown = self._begin(env, theta, t, x, h, writer)
            observation = ready.observation
            starting = time.perf_counter() - started
            seen = writer.observation(observation)
            over = False
            while not over:
                if self.stop.is_set():
                    raise Interrupted
                acting = True
                decision = theta.act(observation)
                acting = False
                before = observation
                observation, _, terminated, truncated, info = env.step(decision.actions)
                over = terminated or truncated
                if over and self.bench is not None:
                    acting = True
                    judgement = self._judged(self.bench, theta, env, instruction, decision, info, t)
                steps.append(step_of(len(steps) + 1, before, decision, info, env.seconds))
                writer.step(steps[-1], seen, decision)
                seen = writer.observation(observation)
        except InfrastructureError:
            if not acting:  # an endpoint's failure is not a fault of the environment
                self.envs.renew()
            raise
        writer.end(seen, info["score"], info["ended_by"])
        trace = Trace(instruction, steps, observation, info["score"], info["ended_by"], guidance=shown, attempt=t)
        played = Played(trace, started, guidance=x, judge=judgement)
        if judgement is not None:
            writer.json("judge.json", judgement.model_dump(mode="json"))
            played.seconds["words"] = judgement.seconds
        played.passes = ready.passes
        played.seconds["acting"] = ready.reading_seconds + sum(s.seconds["acting"] for s in steps)
        early = ready.reset_seconds if ready.early else -ready.reading_seconds
        played.seconds["environment"] = starting + early + sum(s.seconds["environment"] for s in steps)
        return played

    def _judged(
        self,
        bench: Bench,
        theta: PolicySession,
        env: Environment,
        instruction: str,
        decision: Decision,
        info: dict[str, Any],
        t: int,
    ) -> JudgeColumns | None:
        """What the judge says of the attempt that has just ended; the policy is not acting meanwhile."""
        learns = info["score"] < self.config.success_threshold and t < self.config.attempts and self.config.adapt.axes(t)[1]
        return bench.hear(env, instruction, decision, info, learns=learns)

    def _begin(
        self, env: Environment, theta: PolicySession, t: int, x: str, h: History, writer: AttemptWriter
    ) -> tuple[Ready, str, str]:
        """Reset the task and tell the policy: (the reset, instruction, guidance with what earlier sessions taught)."""
        theta.meet(env)
        ready, self._ready = self._ready, None
        if isinstance(ready, InfrastructureError):
            raise ready
        if ready is None:
            ready = self._make_ready(theta, t, x, h)
        info = ready.info
        if self.config.history == "conversation":
            theta.converse(h)
        examples: Sequence[tuple[str, str]] = ()
        if self.experience is not None:
            given = self.experience.give(theta, info["instruction"])
            x, examples = x if h else "\n\n".join(filter(None, [given.lessons, x])), given.examples
        theta.begin(info["instruction"], guidance=x, attempt=t)
        writer.begin(self.task, t, info["instruction"], x, env.seconds, examples)
        return ready, info["instruction"], x

    def _make_ready(self, theta: PolicySession, t: int, x: str, h: History, *, early: bool = False) -> Ready:
        """Reset the task for attempt ``t``; after an update also read what its first prompt begins with.  Nothing of θ is used."""
        env = self.envs.get(self.task)
        started = time.perf_counter()
        observation, info = env.reset(options={"task": self.task})
        reset_seconds = time.perf_counter() - started
        passes = NO_PASSES
        if t > 1 and self.config.adapt.axes(t - 1)[1] and self.experience is None:
            past = h if self.config.history == "conversation" else ()
            passes = theta.prepare(observation, info["instruction"], guidance=x, attempt=t, history=past)
        reading_seconds = time.perf_counter() - started - reset_seconds
        return Ready(observation, info, reset_seconds, reading_seconds, passes, early)

    def _learn(self, theta: PolicySession, played: Played, writer: AttemptWriter, h: History) -> None:
        """What is learned from a failed attempt; an axis that is off, or cannot learn, leaves x or θ as it is.

        ``h`` is the conversation after it.
        """
        words, weights = self.config.adapt.axes(played.trace.attempt)
        said = None if self.bench is None else self.bench.credit(played.judge, len(played.trace.steps))
        credit: Sequence[float] = (-1.0,) * len(played.trace.steps) if said is None else said  # r_i = r_t
        silent = self.bench is not None and self.bench.silent(played.judge)
        if self.words is not None and (words or weights) and not silent:  # the weights may want the credit only
            credit = self._learn_words(self.words, played, writer, learn=words, credit=said)
        theta.blame(credit)
        theta.heed(played.trace.feedback)
        if played.guidance:
            writer.text("guidance.txt", played.guidance)
        if weights:
            self._learn_weights(theta, played, credit, writer, h)

    def _learn_words(
        self, words: Retrospector, played: Played, writer: AttemptWriter, *, learn: bool, credit: tuple[float, ...] | None
    ) -> Sequence[float]:
        """x*_{t+1} = x_{t+1} − ∇_text L(ŷ_t)  (Alg. 1, line 14), into ``played.guidance``; returns the credit of each step.

        ``credit``: what a judge has said of the whole reply, if one has.
        """
        started = time.perf_counter()
        trace = dataclasses.replace(played.trace, guidance=played.guidance)  # x alone, without what earlier sessions taught
        reflection = words.reflect(trace, words=learn, credit=credit)
        played.guidance = reflection.guidance
        played.seconds["words"] += time.perf_counter() - started
        played.words = rows.words_columns(reflection)
        writer.json("words.json", {"reflection": reflection.to_json(), "state": words.state()})
        return reflection.credit

    def _learn_weights(
        self, theta: PolicySession, played: Played, credit: Sequence[float], writer: AttemptWriter, h: History
    ) -> None:
        """θ_{t+1} = θ_t + Δθ  (Alg. 1, line 17), beside the reset for the next attempt (:mod:`agentlab.run.ahead`)."""
        started = time.perf_counter()
        try:
            solve = functools.partial(theta.adapt, credit, **self.config.adapt.told(played.guidance))
            t = played.trace.attempt + 1
            prepare = functools.partial(self._make_ready, theta, t, played.guidance, h, early=True) if self.config.overlap else None
            solved = beside(solve, None if self.stop.is_set() else prepare)
            update, self._ready, played.hidden = solved.made, solved.ready, solved.hidden
            early = solved.ready.seconds if isinstance(solved.ready, Ready) else 0.0
            started += early  # of the next attempt
            if update is None:
                return
            known = {"method": update.method, "accepted": update.accepted, "seconds": update.seconds}
            if update.passes.forward:
                known |= {"forward_passes": update.passes.forward, "prefills": update.passes.prefill}
            played.update = UpdateColumns(**(update.numbers | known))
            if update.replies:
                writer.json("tokens.json", {"replies": [dataclasses.asdict(reply) for reply in update.replies]})
        except AdaptationError as error:
            method = self.config.adapt.weights.method
            played.update = UpdateColumns(method=method, accepted=False, seconds=0.0, error=str(error))
        played.adapter = self._save_adapter(theta, played.trace.attempt)
        played.seconds["weights"] = time.perf_counter() - started
        writer.json("update.json", played.update.model_dump(mode="json"))

    def _save_adapter(self, theta: PolicySession, t: int) -> bool:
        folder = self.store.adapter_folder(t)
        with disk_errors(folder):
            folder.mkdir()
            saved = theta.save_adapter(folder)
            if not saved:
                folder.rmdir()
        return saved

    def _commit(self, t: int, row: Row) -> Row:
        row = row.model_copy(update={"memory": self.memory()})
        self.store.commit(t, row)  # from here on the adapters before this attempt's are not needed
        self.store.prune_adapters(self.config.keep_adapters)
        return row


def step_of(index: int, before: Observation, decision: Decision, info: Mapping[str, Any], seconds: float) -> Step:
    """A reply and what it did; ``info`` and ``seconds`` are the environment's."""
    return Step(
        index=index,
        observation=before,
        text=decision.text,
        thought=decision.thought,
        action_text=decision.action_text,
        actions=decision.actions,
        invalid=info.get("invalid", ""),
        feedback=info.get("feedback", ""),
        seconds={"acting": decision.seconds, "environment": seconds},
        tokens=decision.tokens,
        redrawn=decision.redrawn,
        redrawn_unparsable=decision.redrawn_unparsable,
        forward_passes=decision.passes.forward,
        prefills=decision.passes.prefill,
        token_ids=decision.token_ids,
    )


def derive_seed(seed: int, task_id: str) -> int:
    """The seed of one session, in [0, 2**63): independent of which worker runs it, and when."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{task_id}".encode()).digest()[:8]) >> 1
