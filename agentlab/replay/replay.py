"""Recorded actions sent to a fresh environment: does the same thing happen again, step by step, and is the score the same?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from agentlab.disk.runs import Attempt, Run, read_observation
from agentlab.replay.masks import differing_share
from agentlab.replay.targets import Selection, configuration, safe_options, with_suite
from agentlab.run.parts import plan, refuse
from envs import actions as act
from envs.base import Observation, Screenshot, TaskEnv, TaskSpec, modalities, picture
from envs.errors import InfrastructureError, InvalidActionError, StoreError, UsageError
from envs.gui import GUIEnv, Rectangle
from envs.plugins import only_named
from envs.slot import EnvSlot
from envs.suites import choices, lacking, machinery
from retrospect.sanitize import shorten

KEPT_SCREENS = 12
"""Divergences whose screens are kept, to be drawn; those of a desktop are 12 MB each."""


SHOWN = 80
"""Characters shown of a line that differs."""


@dataclass(frozen=True)
class Options:
    """How to replay.

    Attributes:
        masks: Parts of the screen that are not compared, besides those that the environment knows to change by themselves.
        whole: Compare those as well.
        tolerance: Difference of a colour channel, 0 … 255, that does not count.
        share: Share of the compared pixels that may differ.
        patience: Seconds for which a screen that differs is looked at again: a text cursor blinks, a window may come late.
        stop: Give an attempt up at its first divergence, ungraded, instead of going on to the end.
        solved: Only attempts that solved their task.
        retries: How often an attempt that the machinery broke is retried.
    """

    masks: tuple[Rectangle, ...] = ()
    whole: bool = False
    tolerance: int = 0
    share: float = 0.0
    patience: float = 3.0
    stop: bool = False
    solved: bool = False
    retries: int = 2


@dataclass(frozen=True)
class Divergence:
    """The first thing that went another way.

    Attributes:
        after: Step after which it showed; 0 is the start.
        what: In words.
        recorded, replayed: What was seen, where that is what differs; None as well where many others have been kept.
        masks: What was not compared.
    """

    after: int
    what: str
    recorded: Observation | None = None
    replayed: Observation | None = None
    masks: tuple[Rectangle, ...] = ()


@dataclass
class Replay:
    """One attempt, replayed.

    Attributes:
        compared: Observations compared; ``unseen`` could not be, because the recorded one cannot be read.
        divergence: The first one, or None.
        recorded, score: Scores then and now; ``score`` is None if the replay was not graded.
        failure: Why it could not be replayed ("" if it was): that says nothing about the attempt.
        machinery: Whether it was the machinery that failed.
    """

    session: str
    attempt: int
    compared: int = 0
    unseen: int = 0
    divergence: Divergence | None = None
    recorded: float | None = None
    score: float | None = None
    failure: str = ""
    machinery: bool = False

    @property
    def reproduced(self) -> bool:
        return not self.failure and self.divergence is None and self.score == self.recorded


class Replayer:
    """Replays attempts of one run, on an environment and machinery of its own that are made when they are first needed.

    Args:
        env: Options of the environment that the user gives.
        suite: The task files, where the run's tasks are the user's own.

    Attributes:
        ignored: Options that the run has and that are not taken from it.
        masks: What has not been compared.

    Raises:
        UsageError, StoreError: the run cannot be replayed.
    """

    def __init__(self, run: Run, options: Options, env: Mapping[str, Any] | None = None, suite: str | None = None) -> None:
        config = with_suite(configuration(run), suite)
        self.options, self.masks = options, options.masks
        with only_named(suite):
            self._suite, tasks = config.suite, plan(config)
        self._given, self.ignored = safe_options(config.env, env or {}, *choices(tasks[0]))
        self._tasks = {task.id: task for task in tasks}
        self._stack = ExitStack()
        self._envs: EnvSlot | None = None

    def replay(self, session: str, attempt: Attempt) -> Replay | None:
        """Repeat an attempt; None if it is not one to replay (unfinished, or not solved where only solved ones are asked for).

        Raises:
            SetupError: the environment is unavailable on this machine.
        """
        row = attempt.result
        if row is None or not row.graded or (self.options.solved and not row.success):
            return None
        for again in reversed(range(self.options.retries + 1)):
            done = Replay(session, attempt.number, recorded=row.score)
            try:
                self._replay(attempt, done)
            except (StoreError, InvalidActionError, UsageError) as error:
                done.failure = error.message
            except InfrastructureError as error:
                self._slot().renew()
                done.failure, done.machinery = f"{error.component}: {error.message}", True
                if again:
                    continue
            return done
        raise AssertionError("unreachable")

    def _slot(self) -> EnvSlot:
        """The environment; before the first one, what it needs is looked for and its machinery started."""
        if self._envs is None:
            refuse(list(lacking(self._suite, self._given)))
            shared = self._stack.enter_context(machinery(self._suite, self._given, run="replay", workers=1))
            self._envs = EnvSlot(shared)
        return self._envs

    def _replay(self, attempt: Attempt, done: Replay) -> None:
        task = self._tasks.get(attempt.begin.get("task", ""))
        if task is None:
            raise StoreError(f"The task {attempt.begin.get('task')!r} is not one of this run's settings.")
        steps = [tuple(act.from_json(a) for a in step.get("actions", [])) for step in attempt.steps]
        if not steps or not all(steps) or not attempt.end:
            raise StoreError("Its record has no end, or steps without actions.")
        env = self._slot().get(task)
        try:
            self._start(env, task, attempt, done)
            for index, actions in enumerate(steps, start=1):
                if (done.divergence is not None and self.options.stop) or self._step(env, attempt, index, actions, done):
                    return
        finally:
            if isinstance(env, GUIEnv):
                env.expect(None)

    def _start(self, env: TaskEnv, task: TaskSpec, attempt: Attempt, done: Replay) -> None:
        recorded = self._expect(env, attempt, attempt.steps[0], done)
        observation, info = env.reset(options={"task": task})
        if info["instruction"] != attempt.begin.get("instruction"):
            _diverged(done, Divergence(0, f"the instruction is {info['instruction']!r}"))
        self._compare(env, recorded, observation, 0, done)

    def _step(self, env: TaskEnv, attempt: Attempt, index: int, actions: tuple[act.Action, ...], done: Replay) -> bool:
        """Repeat step ``index`` (from 1); returns whether the episode is over."""
        last = index == len(attempt.steps)
        recorded = self._expect(env, attempt, attempt.end if last else attempt.steps[index], done)
        observation, _, terminated, truncated, info = env.step(actions)
        if bool(info.get("invalid")) != bool(attempt.steps[index - 1].get("invalid")):
            _diverged(done, Divergence(index, f"the action was {'refused' if info.get('invalid') else 'accepted'} this time"))
        self._compare(env, recorded, observation, index, done)
        over = terminated or truncated
        if over != last:
            _diverged(done, Divergence(index, "the episode ended earlier" if over else "the episode did not end"))
        if over:
            done.score = float(info["score"])
        return over

    def _expect(self, env: TaskEnv, attempt: Attempt, event: Mapping[str, Any], done: Replay) -> Observation | None:
        """What was seen next, if it can be read; until something has gone another way, a screen is waited for."""
        try:
            recorded = read_observation(attempt.folder, event)
        except StoreError:
            recorded = None
        if not isinstance(env, GUIEnv):
            return recorded
        if recorded is None or done.divergence is not None or "screenshot" not in recorded:
            env.expect(None)
            return recorded
        wanted = recorded["screenshot"]
        env.expect(lambda screen: self._share(env, wanted, screen) <= self.options.share, self.options.patience)
        return recorded

    def _share(self, env: GUIEnv, recorded: Screenshot, screen: Screenshot) -> float:
        if not self.options.whole:
            self.masks = tuple(dict.fromkeys((*self.options.masks, *env.restless())))
        return differing_share(recorded, screen, self.masks, self.options.tolerance)

    def _compare(self, env: TaskEnv, recorded: Observation | None, seen: Observation, after: int, done: Replay) -> None:
        if recorded is None:
            done.unseen += 1
            return
        done.compared += 1
        what = self._difference(env, recorded, seen)
        if what:
            _diverged(done, Divergence(after, what, recorded, seen, self.masks))

    def _difference(self, env: TaskEnv, recorded: Observation, seen: Observation) -> str:
        """How two observations differ, in words; "" if they do not."""
        if modalities(recorded) != modalities(seen):
            return f"there is {_made_of(seen)} instead of {_made_of(recorded)}"
        if recorded.get("text") != seen.get("text"):
            return text_difference(recorded.get("text", ""), seen.get("text", ""))
        if not isinstance(env, GUIEnv) or "screenshot" not in recorded:
            return ""
        old, new = recorded["screenshot"], picture(seen)
        if old.shape != new.shape:
            return "the screen is {1}x{0} instead of {3}x{2}".format(*new.shape[:2], *old.shape[:2])
        share = self._share(env, old, new)
        return f"{share:.2%} of the screen differs" if share > self.options.share else ""

    def close(self) -> None:
        """Close the environment and its machinery.  May be called twice."""
        try:
            if self._envs is not None:
                self._envs.close()
        finally:
            self._stack.close()


def _made_of(observation: Observation) -> str:
    return " and ".join(f"a {kind}" for kind in sorted(modalities(observation))) or "nothing"


def text_difference(recorded: str, seen: str) -> str:
    """The first line in which two texts differ, in words."""
    old, new = recorded.split("\n"), seen.split("\n")
    place = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    lines = [shorten(lines[place], SHOWN) if place < len(lines) else None for lines in (old, new)]
    if lines[0] is None or lines[1] is None:
        return f"the text has {len(new)} lines instead of {len(old)}"
    return f"line {place + 1} of the text is {lines[1]!r} instead of {lines[0]!r}"


def _diverged(done: Replay, divergence: Divergence) -> None:
    if done.divergence is None:
        done.divergence = divergence


def replay_all(
    target: Selection,
    options: Options,
    env: Mapping[str, Any],
    say: Callable[[str], None],
    *,
    suite: str | None = None,
    follow: Callable[[Iterable[tuple[str, Attempt]]], Iterable[tuple[str, Attempt]]] = iter,
) -> tuple[list[Replay], list[str]]:
    """Replay what ``target`` means.  Returns results and notes.

    Args:
        say: Gets a line for each attempt that went another way.
        follow: Wraps the attempts, to show how far the replay is.

    Raises:
        UsageError: there is nothing to replay.
        SetupError: the environment is unavailable on this machine.
    """
    replayer, done, kept = Replayer(target.run, options, env, suite), [], 0
    try:
        for session, attempt in follow(target.attempts()):
            one = replayer.replay(session, attempt)
            if one is None:
                continue
            if one.divergence is not None and one.divergence.recorded is not None:
                kept += 1
                if kept > KEPT_SCREENS:
                    one.divergence = dataclasses.replace(one.divergence, recorded=None, replayed=None)
            done.append(one)
            if not one.reproduced:
                reason = one.failure or (one.divergence.what if one.divergence else "another score")
                say(f"{session}/{attempt.number}: {reason}")
    finally:
        try:
            replayer.close()
        except InfrastructureError as error:  # what was found out must not be lost with it
            say(str(error))
    if not done:
        raise UsageError("There is no finished attempt to replay.", "With --solved only those that solved their task count.")
    notes = [f"Not taken from the run, give them with --set if needed: env.{key}." for key in replayer.ignored]
    if replayer.masks:
        notes.append(f"Not compared (x,y,width,height): {' '.join(','.join(map(str, mask)) for mask in replayer.masks)}.")
    return done, notes
