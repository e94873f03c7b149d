"""The contract of every environment: a Gymnasium environment with one sparse reward at the end of an episode.

What the agent sees is a text, a picture, or both.  A subclass implements four hooks (``_start``, ``_execute``, ``_observe``,
``_grade``) and nothing else; the step budget, the end of an episode and the accounting of invalid actions live here, once.  What
needs a screen is in :mod:`envs.gui`, what needs none in :mod:`envs.text`.
"""

from __future__ import annotations

import abc
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypedDict

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from envs import actions as act
from envs.errors import InfrastructureError, InvalidActionError, UsageError
from envs.theirs import their_code

Screenshot = NDArray[np.uint8]
"""RGB screen, shape [height, width, 3], uint8."""

Modality = Literal["text", "picture"]
"""What an observation can be made of."""

MAX_TEXT = 100_000
"""Characters of a text observation; of a longer one the middle is left out, for the agent as on disk."""

MAX_TREE = 1_000_000
"""Characters of an accessibility tree, likewise: that of a large spreadsheet has more."""

MAX_FEEDBACK = 4_000
"""Characters of what a user says after a step."""


class Observation(TypedDict, total=False):
    """What the agent sees: a text, a picture, or both.

    Which of the two an environment gives is the same in every step, and is what its ``shows`` says.

    Keys:
        screenshot: The screen, [H, W, 3] uint8.
        text: What the environment says, at most MAX_TEXT characters.
        accessibility_tree: Only there when asked for, and never given to a policy; at most MAX_TREE characters.
    """

    screenshot: Screenshot
    text: str
    accessibility_tree: str


def modalities(observation: Observation) -> frozenset[Modality]:
    """What an observation is made of."""
    keys: dict[str, Modality] = {"screenshot": "picture", "text": "text"}
    return frozenset(kind for key, kind in keys.items() if key in observation)


def picture(observation: Observation) -> Screenshot:
    """The observation's screen, for parts that cannot do without one.

    Raises:
        UsageError: there is no picture.
    """
    if "screenshot" not in observation:
        raise UsageError("This needs a picture, and the environment gives text only.", "Choose a benchmark that gives pictures.")
    return observation["screenshot"]


@dataclass(frozen=True)
class TaskSpec:
    """One task instance: together with its environment's name it determines the start of every attempt.

    Attributes:
        env_id: Gymnasium id, e.g. ``agentlab/miniwob-v0``.
        name: The task's name in its benchmark, e.g. ``click-test-2`` or an OSWorld UUID.
        seed: Instance seed; the same (name, seed) gives the same goal and the same first screen on every attempt.
        max_steps: Replies the agent may give before the episode is truncated and graded.
        domain: Group for per-domain tables.
        feasible: False for tasks whose right answer is to declare them infeasible.
        options: Anything else the environment needs, JSON-serialisable.
        repeat: Which session at this instance it is, where there are several; environments do not look at it.
    """

    env_id: str
    name: str
    seed: int
    max_steps: int
    domain: str = ""
    feasible: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    repeat: int = 1

    @property
    def id(self) -> str:
        """Unique within a run: the seed is a number, so that it is what follows the last underscore, whatever the name is.

        From the second repeat on ``.r2`` and so on follows it, which is no number.
        """
        return f"{self.name}_{self.seed}" + (f".r{self.repeat}" if self.repeat > 1 else "")


class Environment(Protocol):
    """What the attempt loop and a policy use of an environment: a :class:`TaskEnv`, of this process or elsewhere."""

    action_space: gym.Space[Any]
    seconds: float

    @property
    def shows(self) -> frozenset[Modality]:
        """What the observations are made of."""

    @property
    def oracle_available(self) -> bool:
        """Whether :meth:`oracle` has an answer."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """As :meth:`TaskEnv.reset`."""

    def step(self, action: act.Action | tuple[act.Action, ...]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """As :meth:`TaskEnv.step`."""

    def oracle(self) -> tuple[str, tuple[act.Action, ...]] | None:
        """As :meth:`TaskEnv.oracle`."""

    def reference(self) -> str | None:
        """As :meth:`TaskEnv.reference`."""

    def objection(self) -> str:
        """As :meth:`TaskEnv.objection`."""

    def close(self) -> None:
        """Release it; may be called twice."""


class TaskEnv(gym.Env[Any, Any], abc.ABC):
    """Base of all environments.

    ``reset(seed=, options={"task": TaskSpec})`` starts one attempt.  ``step(action)`` takes one Action or a tuple of them (several
    actions of one reply are one step).  The reward is 0 until the episode ends and then the benchmark's own score in [0, 1]; the
    episode ends by Finished/Fail, by the benchmark itself, or when ``max_steps`` is reached (truncated, but still graded).

    ``info`` has ``instruction`` (after reset), ``invalid`` (reason, when the step was not executable), ``feedback`` (what a user
    could honestly say to this step, where there is something to say), ``ended_by`` (``finished``, ``fail``, ``environment``,
    ``budget``) and ``score`` at the end.  The attribute ``seconds`` is the time that the last call of ``reset`` or ``step`` took; it
    is not in ``info``, which depends on the task and the actions alone.

    Attributes:
        shows: What the observations are made of; a policy that needs something else is refused before a run starts.

    Raises:
        InfrastructureError: from ``reset`` and ``step`` when the machinery failed; the episode is void and must be reset.
        UsageError: ``step`` before ``reset`` or after the end of an episode.
    """

    shows: ClassVar[frozenset[Modality]]
    oracle_available = False
    choices: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Options that are one of a few words, and the words: these a replay takes from a run that may be somebody else's."""
    withheld: ClassVar[Sequence[str]] = ()
    """Options that a replay takes only from its user, whatever their value."""

    def __init__(self, *, observation_space: gym.Space[Any], action_space: gym.Space[Any], render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space, self.action_space = observation_space, action_space
        self._task: TaskSpec | None = None
        self._observation: Observation | None = None
        self._steps = 0
        self._running = False
        self.seconds = 0.0

    # -- what a benchmark provides ---------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def _start(self, task: TaskSpec) -> str:
        """Put the environment into the task's start state and return the instruction, verbatim."""

    @abc.abstractmethod
    def _execute(self, action: act.Action) -> None:
        """Execute one non-terminal action; raise InvalidActionError if this environment has no such action."""

    @abc.abstractmethod
    def _observe(self) -> Observation:
        """What the agent sees now."""

    @abc.abstractmethod
    def _grade(self, last: act.Action | None) -> float:
        """The benchmark's own score in [0, 1]; called exactly once per episode."""

    def _ended(self) -> bool:
        """True when the benchmark itself has ended the episode."""
        return False

    def _feedback(self, score: float | None) -> str:
        """What a user could honestly say to the step just made ("" for nothing), without giving the answer away.

        ``score`` is None while the episode goes on.  A failing test's output, "too large", an error that the user would have seen;
        never the answer, and nothing that only the grader knows.  It is not part of what the agent sees in this attempt: it is
        recorded, and what is learned from a failed attempt may use it.
        """
        return ""

    def reference(self) -> str | None:
        """The right answer of the task being attempted, for a judge's eyes only; None where there is none to hold an answer against."""
        return None

    def objection(self) -> str:
        """What a user says to an attempt that a judge has not accepted, whatever the grader thinks of it ("" for nothing)."""
        return ""

    def oracle(self) -> tuple[str, tuple[act.Action, ...]] | None:
        """(thought, actions) of a scripted expert for the current state, or None.  For tests, demonstrations and training only."""
        return None

    # -- Gymnasium ----------------------------------------------------------------------------------------------------------
    def _default_task(self, seed: int) -> TaskSpec:
        raise UsageError(f"{type(self).__name__}.reset needs a task.", 'Pass reset(options={"task": TaskSpec(...)}).')

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start an attempt at ``options["task"]``; without one, at the default task with an instance drawn from ``seed``."""
        super().reset(seed=seed)
        started = time.perf_counter()
        task = (options or {}).get("task")
        if task is None:
            task = self._default_task(int(self.np_random.integers(2**31)))
        self._running = False
        with their_code(type(self), "_start"):
            instruction = self._start(task)
        self._task, self._steps, self._running = task, 0, True
        self._observation = self._observed()
        self.seconds = time.perf_counter() - started
        return self._observation, {"instruction": instruction, "task": task}

    def step(self, action: act.Action | tuple[act.Action, ...]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        if not self._running or self._task is None:
            raise UsageError("step() called on an episode that is not running.", "Call reset() first.")
        started = time.perf_counter()
        batch = action if isinstance(action, tuple) else (action,)
        info: dict[str, Any] = {}
        self._steps += 1
        self._running = False  # stays False if the machinery raises: a void episode cannot be stepped
        last, ended_by = None, ""
        for last in batch:
            ended_by = self._apply(last, info)
            if ended_by or "invalid" in info:
                break
        observation = self._observed()
        truncated = not ended_by and self._steps >= self._task.max_steps
        if truncated:
            ended_by = "budget"
        reward = 0.0
        if ended_by:
            reward = self._graded(self._task, last)
            info.update(score=reward, ended_by=ended_by)
        with their_code(type(self), "_feedback"):
            said = self._feedback(reward if ended_by else None)
        if said:
            info["feedback"] = bounded(said, MAX_FEEDBACK)
        self._running = not ended_by
        self._observation = observation
        self.seconds = time.perf_counter() - started
        return observation, reward, bool(ended_by) and not truncated, truncated, info

    def _graded(self, task: TaskSpec, last: act.Action | None) -> float:
        """The benchmark's score, once it is one: anything else would be averaged and learned from as if it were.

        Raises:
            InfrastructureError: it is not a number from 0 to 1.
        """
        with their_code(type(self), "_grade", "grader"):
            given: Any = self._grade(last)  # a stranger's
        try:
            score = float(given)
        except (TypeError, ValueError, OverflowError):
            score = math.nan
        if not 0.0 <= score <= 1.0:
            raise InfrastructureError(
                f"The grader of {task.env_id} gave {repr(given)[:60]} for {task.name!r}, which is no score from 0 to 1.",
                f"Mend {type(self).__name__}._grade; the attempt does not count.",
                component="grader",
            )
        return score

    def _observed(self) -> Observation:
        with their_code(type(self), "_observe"):
            observation = self._observe()
        if "text" in observation:
            observation["text"] = bounded(observation["text"], MAX_TEXT)
        if "accessibility_tree" in observation:
            observation["accessibility_tree"] = bounded(observation["accessibility_tree"], MAX_TREE)
        return observation

    def _apply(self, action: act.Action, info: dict[str, Any]) -> str:
        """Execute one action; returns how the episode ended, or an empty string."""
        if isinstance(action, act.TERMINAL):
            return action.kind
        if isinstance(action, act.Invalid):
            info["invalid"] = action.reason
            return ""
        try:
            if not self.action_space.contains(action):
                wrong = act.problem(action)
                raise InvalidActionError(f"{act.describe(action)}{': ' if wrong else ' '}{wrong or self._outside}.")
            with their_code(type(self), "_execute"):
                self._execute(action)
        except InvalidActionError as error:
            info["invalid"] = error.message
        with their_code(type(self), "_ended"):
            return "environment" if self._ended() else ""

    _outside = "is unknown to this environment"
    """What is wrong with an action that the action space does not contain."""


def bounded(text: str, limit: int) -> str:
    """Text that can be stored as it is: no lone surrogates, and of more than ``limit`` characters the middle is left out."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= limit:
        return text
    mark = f"\n[… {len(text) - limit} characters or more left out …]\n"
    kept = limit - len(mark)
    return text[: kept - kept // 2] + mark + text[len(text) - kept // 2 :]


class TaskSuite(abc.ABC):
    """A named, ordered list of task instances.

    Attributes:
        default_limit: Instances of a run that asks for no number: all, where the benchmark is a fixed list.
        default_attempts: Attempts per task of a run that asks for no number.
    """

    name: str
    default_limit = 100
    default_attempts = 5

    @abc.abstractmethod
    def task_names(self) -> list[str]:
        """All task names, in the suite's order."""

    @abc.abstractmethod
    def instances(self, names: Sequence[str] | None, seed: int) -> Iterator[TaskSpec]:
        """Instances in the order of a run: deterministic in ``seed``; endless where the benchmark generates instances.

        Raises:
            UsageError: unknown task names (nearest ones offered).
        """

    def excluded(self) -> dict[str, str]:
        """Tasks of the benchmark that the suite leaves out, with the reason."""
        return {}
