"""The contract of every environment: a Gymnasium environment with one sparse reward at the end of an episode.

A subclass implements four hooks (``_start``, ``_execute``, ``_observe``, ``_grade``) and nothing else; the step budget, the end
of an episode and the accounting of invalid actions live here, once.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NotRequired, TypedDict

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from envs import actions as act
from envs.errors import InvalidActionError, UsageError

Screenshot = NDArray[np.uint8]
"""RGB screen, shape [height, width, 3], uint8."""

Rectangle = tuple[int, int, int, int]
"""x, y, width, height in pixels."""

LOOK_AGAIN_SECONDS = 0.15
"""Between two looks at a screen that is waited for."""


class Observation(TypedDict):
    """What the agent sees.  ``accessibility_tree`` is only there when asked for and is never given to a policy."""

    screenshot: Screenshot
    accessibility_tree: NotRequired[str]


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
    """

    env_id: str
    name: str
    seed: int
    max_steps: int
    domain: str = ""
    feasible: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Directory-safe name, unique within a run."""
        return f"{self.name}_{self.seed}"


class ActionSpace(gym.Space[Any]):
    """The actions an environment understands: an :class:`~envs.actions.Action` or a tuple of them (one reply, one step)."""

    def __init__(self, kinds: Iterable[type[act.Action]], width: int, height: int, seed: int | None = None) -> None:
        self.kinds = tuple(kinds)
        self.width, self.height = width, height
        super().__init__(shape=None, dtype=None, seed=seed)

    def sample(self, mask: Any = None, probability: Any = None) -> act.Action:
        x, end_x = (float(v) for v in self.np_random.integers(0, self.width, 2))
        y, end_y = (float(v) for v in self.np_random.integers(0, self.height, 2))
        samples: dict[type[act.Action], act.Action] = {
            act.Drag: act.Drag(x, y, end_x, end_y),
            act.Type: act.Type("abc"),
            act.Hotkey: act.Hotkey(("tab",)),
            act.KeyDown: act.KeyDown(("shift",)),
            act.KeyUp: act.KeyUp(("shift",)),
            act.Scroll: act.Scroll(x, y, act.DIRECTIONS[int(self.np_random.integers(4))]),
            act.OpenApp: act.OpenApp("Settings"),
            act.Answer: act.Answer(""),
            act.Invalid: act.Invalid("sampled"),
        }
        kind = self.kinds[int(self.np_random.integers(len(self.kinds)))]
        if kind in samples:
            return samples[kind]
        return kind(x, y) if kind in act.POINTED else kind()  # type: ignore[call-arg]

    def contains(self, x: Any) -> bool:
        return all(self._contains_one(a) for a in x) if isinstance(x, tuple) and x else self._contains_one(x)

    def _contains_one(self, action: Any) -> bool:
        if isinstance(action, act.Invalid):
            return True
        if not isinstance(action, self.kinds):
            return False
        if not isinstance(action, act.POINTED):
            return True
        points = [(action.x, action.y)]
        if isinstance(action, act.Drag):
            points.append((action.end_x, action.end_y))
        return all(0 <= px < self.width and 0 <= py < self.height for px, py in points)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def to_jsonable(self, sample_n: Iterable[Any]) -> list[Any]:
        return [act.to_json(a) for a in sample_n]

    def from_jsonable(self, sample_n: list[Any]) -> list[Any]:
        return [act.from_json(a) for a in sample_n]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ActionSpace)
            and (self.kinds, self.width, self.height) == (other.kinds, other.width, other.height)
        )  # fmt: skip


class GUIEnv(gym.Env[Any, Any], abc.ABC):
    """Base of the graphical environments.

    ``reset(seed=, options={"task": TaskSpec})`` starts one attempt.  ``step(action)`` takes one Action or a tuple of them (several
    actions of one reply are one step).  The reward is 0 until the episode ends and then the benchmark's own score in [0, 1]; the
    episode ends by Finished/Fail, by the benchmark itself, or when ``max_steps`` is reached (truncated, graded all the same).

    ``info`` has ``instruction`` (after reset), ``invalid`` (reason, when the step was not executable), ``ended_by`` (``finished``,
    ``fail``, ``environment``, ``budget``) and ``score`` at the end.  The attribute ``seconds`` is the time that the last call of
    ``reset`` or ``step`` took; it is not in ``info``, which depends on the task and the actions alone.

    Raises:
        InfrastructureError: from ``reset`` and ``step`` when the machinery failed; the episode is void and must be reset.
        UsageError: ``step`` before ``reset`` or after the end of an episode.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 1}
    oracle_available = False
    choices: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Options that are one of a few words, and the words: these a replay takes from a run that may be somebody else's."""
    withheld: ClassVar[Sequence[str]] = ()
    """Options that a replay takes only from its user, whatever their value."""

    def __init__(self, *, width: int, height: int, kinds: Iterable[type[act.Action]], render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Dict({"screenshot": gym.spaces.Box(0, 255, shape=(height, width, 3), dtype=np.uint8)})
        self.action_space = ActionSpace(kinds, width, height)
        self._task: TaskSpec | None = None
        self._observation: Observation | None = None
        self._steps = 0
        self._running = False
        self._expected: tuple[Callable[[Screenshot], bool], float] | None = None
        self.seconds = 0.0

    # -- what a benchmark provides ---------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def _start(self, task: TaskSpec) -> str:
        """Put the device into the task's start state and return the instruction, verbatim."""

    @abc.abstractmethod
    def _execute(self, action: act.Action) -> None:
        """Execute one non-terminal action; raise InvalidActionError if this environment has no such action."""

    @abc.abstractmethod
    def _observe(self) -> Observation:
        """The screen now."""

    @abc.abstractmethod
    def _grade(self, last: act.Action | None) -> float:
        """The benchmark's own score in [0, 1]; called exactly once per episode."""

    def _ended(self) -> bool:
        """True when the benchmark itself has ended the episode."""
        return False

    def restless(self) -> tuple[Rectangle, ...]:
        """Parts of the screen that change by themselves (a clock), in pixels of the current episode's screen."""
        return ()

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
        instruction = self._start(task)
        self._task, self._steps, self._running = task, 0, True
        self._observation = self._awaited()
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
        observation = self._awaited()
        truncated = not ended_by and self._steps >= self._task.max_steps
        if truncated:
            ended_by = "budget"
        reward = 0.0
        if ended_by:
            reward = float(self._grade(last))
            info.update(score=reward, ended_by=ended_by)
        self._running = not ended_by
        self._observation = observation
        self.seconds = time.perf_counter() - started
        return observation, reward, bool(ended_by) and not truncated, truncated, info

    def expect(self, same: Callable[[Screenshot], bool] | None, seconds: float = 0.0) -> None:
        """The next calls of ``reset`` and ``step`` look again, for up to ``seconds``, while ``same`` is false of the screen.

        For replays: a text cursor blinks and a window may be drawn late, so that a screen counts as another one only if it stays so.
        """
        self._expected = (same, seconds) if same is not None else None

    def _awaited(self) -> Observation:
        observation = self._observe()
        if self._expected is not None:
            same, seconds = self._expected
            until = time.monotonic() + seconds
            while not same(observation["screenshot"]) and time.monotonic() < until:
                time.sleep(LOOK_AGAIN_SECONDS)
                observation = self._observe()
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
                raise InvalidActionError(f"{act.describe(action)} is off the screen or unknown to this environment.")
            self._execute(action)
        except InvalidActionError as error:
            info["invalid"] = error.message
        return "environment" if self._ended() else ""

    def render(self) -> Screenshot | None:
        return None if self._observation is None else self._observation["screenshot"]


class TaskSuite(abc.ABC):
    """A named, ordered list of task instances.

    Attributes:
        default_limit: Instances of a run that asks for no number: all, where the benchmark is a fixed list.
    """

    name: str
    default_limit = 100

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
