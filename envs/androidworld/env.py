"""An Android emulator as a Gymnasium environment: ``gymnasium.make("agentlab/androidworld-v0")``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import gymnasium as gym

from envs import actions as act
from envs.androidworld import knobs, tasks
from envs.androidworld.device import Device, Instance
from envs.androidworld.gestures import Conventions, compile_action, sendable
from envs.androidworld.machinery import make_provider
from envs.androidworld.options import CHOICES, check, read_demonstrations
from envs.androidworld.providers import Provider
from envs.androidworld.suite import make_spec
from envs.base import MAX_TREE, Observation, TaskSpec
from envs.errors import InfrastructureError, InvalidActionError, UsageError
from envs.gui import GUIEnv, Rectangle
from envs.spaces import AnyText

KINDS = (
    act.Click, act.DoubleClick, act.LongPress, act.Drag, act.Type, act.Hotkey, act.Scroll, act.Wait, act.PressHome, act.PressBack,
    act.OpenApp, act.Answer, act.Finished, act.Fail,
)  # fmt: skip
SCREEN = (1080, 2400)
"""The screen (width, height) of the Pixel 6 that upstream prescribes."""
STATUS_BAR = 0.055
"""Height of the bar with clock, signal and battery, as a share of the screen's longer side."""
DEFAULT_TASK, DEFAULT_SUITE_SEED = "OpenAppTaskEval", 30
"""The seed is that of upstream's ``run.py``."""


class AndroidWorldEnv(GUIEnv):
    """One AndroidWorld task on an emulator from a provider.

    The task is one of :class:`~envs.androidworld.suite.AndroidWorldSuite`.  Every reset tears down what was active and initialises
    the same instance again, with unchanged parameters; a goal that comes out different is a failure of the machinery (the miniwob
    family draws its goal on the device, and is exempt).  A task that cannot be initialised or scored is one too.

    Score, as upstream's runner counts: that of upstream's own check of the device if the agent declared itself done (``Finished`` or
    ``Fail``) within the budget or the task ended itself (miniwob), else 0 without a look at the device.  The text of ``Finished``
    is given as the answer unless an ``Answer`` came before.

    Observation: ``screenshot`` [2400, 1080, 3] uint8 (or the size of ``screen``), at rest; an application that turns the screen
    turns the picture with it, and the environment's two spaces.  With ``accessibility`` also ``accessibility_tree``: upstream's UI elements
    as JSON (``[]`` behind upstream's server, which does not give them away).

    Args:
        provider: ``ours``, ``upstream``, ``HOST:PORT[,PORT...]``, or a provider; one that is passed in is shared, not closed here.
        image: Tag of the provider's image, if not the usual one.
        spares: Booted emulators that wait, paused.
        screen: (width, height) in pixels of the device.
        scroll, enter, drag, scroll_share, wait_seconds: See :class:`~envs.androidworld.gestures.Conventions`.
        finished_answers: Whether the text of ``Finished`` is an answer.
        settle: ``stable``: look when the screen has come to rest, as upstream's runner does; ``none``: at once.
        restore: ``never``, or ``attempt``: load the emulator's snapshot before every attempt (our server only).
        accessibility: Add ``accessibility_tree`` to the observation.
        demonstrations: JSON file, task name -> list of steps, each a list of actions: what :meth:`oracle` follows.
        oracle: For the policy ``scripted``.
        emulator_settings: Of the emulator that is started (``boot_timeout_s``, ``memory_mb`` …: :mod:`envs.androidworld.knobs`).
        render_mode: ``rgb_array`` or None.
    """

    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "provider": ("ours", "upstream"), "scroll": ("content", "finger"), "enter": ("asked", "always"), "drag": ("swipe", "pick_up"),
        **CHOICES,
    }  # fmt: skip
    emulator_settings: ClassVar[Mapping[str, knobs.Knob]] = knobs.KNOBS
    withheld = ("spares", *knobs.KNOBS)

    def __init__(
        self,
        *,
        provider: str | Provider = "ours",
        image: str = "",
        spares: int = 0,
        screen: tuple[int, int] = SCREEN,
        scroll: Literal["content", "finger"] = "content",
        enter: Literal["asked", "always"] = "asked",
        drag: Literal["swipe", "pick_up"] = "swipe",
        scroll_share: float = 0.5,
        wait_seconds: float = 1.0,
        finished_answers: bool = True,
        settle: Literal["stable", "none"] = "stable",
        restore: Literal["never", "attempt"] = "never",
        accessibility: bool = False,
        demonstrations: str | Path | None = None,
        oracle: bool = False,
        render_mode: str | None = None,
        **emulator_settings: Any,
    ) -> None:
        knobs.check(emulator_settings, provider)
        check({
            "scroll": scroll, "enter": enter, "drag": drag, "scroll_share": scroll_share, "wait_seconds": wait_seconds,
            "finished_answers": finished_answers, "settle": settle, "restore": restore, "accessibility": accessibility,
            "oracle": oracle, "spares": spares, "image": image, "screen": screen,
        })  # fmt: skip
        width, height = screen
        super().__init__(width=width, height=height, kinds=KINDS, render_mode=render_mode)
        self._conventions = Conventions(scroll, enter, drag, scroll_share, wait_seconds)
        self._screen = self._bounds = (width, height)
        self._settle, self._restore = settle == "stable", restore == "attempt"
        self._accessibility, self._finished_answers = accessibility, finished_answers
        self._demonstrations = read_demonstrations(demonstrations) if demonstrations is not None else {}
        self.oracle_available = oracle
        self._owns_provider = isinstance(provider, str)
        self._provider = (
            make_provider(provider, image=image, spares=spares, knobs=emulator_settings) if isinstance(provider, str) else provider
        )
        self._device: Device | None = None
        self._instance: Instance | None = None
        self._answered = self._seen = False
        if accessibility:
            assert isinstance(self.observation_space, gym.spaces.Dict)
            self.observation_space["accessibility_tree"] = AnyText(MAX_TREE)

    # -- hooks of GUIEnv ---------------------------------------------------------------------------------------------------------
    def _default_task(self, seed: int) -> TaskSpec:
        return make_spec("android_world", DEFAULT_TASK, DEFAULT_SUITE_SEED, seed % 2)

    def _start(self, task: TaskSpec) -> str:
        instance = Instance.of(task)
        tasks.find(instance.family, instance.name)
        if self._device is None:
            self._device = self._provider.acquire()
        self._answered, self._instance = False, instance
        with self._blaming() as device:
            goal = device.begin(instance, restore=self._restore)
            known = self._provider.goals.setdefault(instance, goal)
            if goal != known and not instance.task.miniwob:
                raise InfrastructureError(f"{task.id} has another goal than before: {goal!r}, was {known!r}.", component="task")
        return goal

    def _execute(self, action: act.Action) -> None:
        with self._blaming() as device:
            if isinstance(action, act.Answer):
                device.answer(sendable(action.text))
                self._answered = True
            else:
                device.perform(compile_action(action, self._conventions, self._bounds))

    def _observe(self) -> Observation:
        with self._blaming() as device:
            look = device.look(tree=self._accessibility, settle=self._settle)
            height, width = look.screenshot.shape[:2]
            if (width, height) not in (self._screen, self._screen[::-1]):
                raise self._wrong_screen(width, height)
            self._seen = True
        if (width, height) != self._bounds:
            self._bounds = (width, height)
            self._turned(width, height)
        observation = Observation(screenshot=look.screenshot)
        if look.tree is not None:
            observation["accessibility_tree"] = look.tree
        return observation

    def _ended(self) -> bool:
        assert self._instance is not None
        if not self._instance.task.miniwob:
            return False
        with self._blaming() as device:
            return device.over()

    def _grade(self, last: act.Action | None) -> float:
        declared = isinstance(last, act.TERMINAL) or self._ended()
        score = 0.0  # upstream: a task that is done but not declared so is not solved
        with self._blaming() as device:
            if isinstance(last, act.Finished) and last.text and self._finished_answers and not self._answered:
                _answer(device, last.text)
            if declared:
                score = device.score()
            device.attest()
            self._provider.worked(device)
        return score

    def restless(self) -> tuple[Rectangle, ...]:
        """The status bar: upstream sets the device's clock at the start of a task, and it runs."""
        return ((0, 0, self._bounds[0], round(STATUS_BAR * max(self._bounds))),)

    def close(self) -> None:
        self._running = False
        device = self._device
        if device is not None:
            failure = None
            try:
                device.end()
            except InfrastructureError as error:
                failure = error
            self._give_back(failure)
        if self._owns_provider:
            self._provider.close()

    # -- experts -----------------------------------------------------------------------------------------------------------------
    def oracle(self) -> tuple[str, tuple[act.Action, ...]] | None:
        """The demonstration's actions of the current step, or None if there are none (left)."""
        if self._instance is None or not self.oracle_available:
            return None
        steps = self._demonstrations.get(self._instance.name, ())
        return ("As demonstrated.", steps[self._steps]) if self._steps < len(steps) else None

    # -- details -----------------------------------------------------------------------------------------------------------------
    @property
    def device(self) -> Device | None:
        """The device of the current episode."""
        return self._device

    def _wrong_screen(self, width: int, height: int) -> UsageError | InfrastructureError:
        """The error for another size: before the first picture the option is wrong, later the device."""
        if not self._seen:
            hint = f"Say so: --set 'androidworld.screen=[{width},{height}]'."
            return UsageError(f"The device's screen has {width}x{height} pixels, not {self._screen[0]}x{self._screen[1]}.", hint)
        return InfrastructureError(f"The device's screen is {width}x{height}, not {self._screen}.", component="emulator")

    def _give_back(self, error: InfrastructureError | None) -> None:
        device, self._device = self._device, None
        if device is not None:
            with contextlib.suppress(InfrastructureError):  # what cannot be given back is removed when the provider closes
                self._provider.release(device, error)

    @contextmanager
    def _blaming(self) -> Iterator[Device]:
        """The device; after a failure of the machinery it is given back, and the error says what became of it."""
        if self._device is None:
            raise InfrastructureError("There is no device; the last reset failed.", "Call reset() again.", component="emulator")
        try:
            yield self._device
        except InfrastructureError as error:
            self._running = False
            explained = error
            with contextlib.suppress(InfrastructureError):  # the engine may have failed as well; what failed first is reported
                explained = self._provider.explain(self._device, error)
            self._give_back(error)
            raise explained from error


def _answer(device: Device, text: str) -> None:
    try:
        device.answer(sendable(text))
    except InvalidActionError:
        return  # an answer that cannot be sent is not an answer; the task is scored without one
