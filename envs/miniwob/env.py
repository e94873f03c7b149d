"""MiniWoB++ as a Gymnasium environment: ``gymnasium.make("agentlab/miniwob-v0")``."""

from __future__ import annotations

import asyncio
import functools
import io
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from envs import actions as act
from envs.base import MAX_TREE, Observation, TaskSpec
from envs.errors import InfrastructureError, UsageError, did_you_mean
from envs.gui import GUIEnv
from envs.miniwob import actions, oracles, tasks
from envs.miniwob.browser import HEIGHT, WIDTH, Browser
from envs.spaces import AnyText

if TYPE_CHECKING:
    from playwright.async_api import Page

_NEUTRAL = (1, HEIGHT - 1)
"""Where the pointer waits for a new episode: below the task, so that nothing is hovered."""

_NAVIGATED = "Execution context was destroyed"

RETAKES = 3
"""Pictures of a screen beyond the first, until two in a row are the same."""


async def _picture(page: Page) -> bytes:
    return await page.screenshot(type="png", caret="initial", animations="allow", scale="css")


@functools.cache
def _page_script(oracle: bool) -> str:
    page = resources.files("envs.miniwob").joinpath("page.js").read_text(encoding="utf-8")
    return page + (oracles.script() if oracle else "")


class MiniWoBEnv(GUIEnv):
    """One MiniWoB++ task page; the instance is drawn by the page itself from the seed.

    The same (task, seed) gives the same goal and the same first screen, pixel for pixel, in every attempt on one machine: the
    page is loaded afresh, random numbers, dates and the clipboard are the page's own, animations and the episode's time limit
    are off.  Letters are drawn with the machine's default sans-serif font, so machines with other fonts show other pixels.

    Observation: ``screenshot`` [220, 160, 3] uint8: the 160x210 task and ten white rows; with ``accessibility`` also
    ``accessibility_tree``, an outline of the visible elements.  Score: 1 if the page's raw reward means solved
    (:func:`envs.miniwob.tasks.solved`), else 0; never before the end; an episode that the page has not ended scores 0.
    ``info["raw_reward"]`` at the end is the page's own figure.  The drop-down list of a native ``<select>`` is drawn by the
    browser outside the page and is not in the screenshot; it can be worked with the keyboard.

    Args:
        task: Name of the default task, used when ``reset`` is given none.
        browser: Path of the browser; by default :func:`envs.miniwob.browser.find_browser` chooses.
        accessibility: Add ``accessibility_tree`` to the observation.
        oracle: Load the scripted experts into the page, for :meth:`oracle`.
        render_mode: ``rgb_array`` or None.
    """

    def __init__(
        self,
        *,
        task: str = "click-test",
        browser: str | None = None,
        accessibility: bool = False,
        oracle: bool = False,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(width=WIDTH, height=HEIGHT, kinds=actions.KINDS, render_mode=render_mode)
        self._accessibility = accessibility
        if accessibility:
            self.observation_space["accessibility_tree"] = AnyText(MAX_TREE)  # type: ignore[index]
        self.oracle_available = oracle
        self._default_name = self._known(task)
        self._executable = browser
        self._browser: Browser | None = None
        self._page: Page | None = None
        self._held: frozenset[str] = frozenset()
        self._state: dict[str, Any] = {}

    @staticmethod
    def _known(name: str) -> str:
        if name not in tasks.pages():
            raise UsageError(f"There is no MiniWoB++ task {name!r}.", did_you_mean(name, tasks.pages(), what="task"))
        return name

    def _default_task(self, seed: int) -> TaskSpec:
        return TaskSpec(tasks.ENV_ID, self._default_name, seed % tasks.TRAIN_SEED_START, tasks.max_steps(self._default_name))

    # -- the hooks of GUIEnv ---------------------------------------------------------------------------------------------------
    def _start(self, task: TaskSpec) -> str:
        url = tasks.pages()[self._known(task.name)].as_uri()
        if self._browser is None or not self._browser.alive:
            self._leave_browser()
            self._browser = Browser.acquire(self._executable)
        if self._page is None:
            self._page = self._browser.open_page(_page_script(self.oracle_available))
        return self._call(self._load(self._page, url, task.seed))

    async def _load(self, page: Page, url: str, seed: int) -> str:
        held, self._held = self._held, frozenset()
        await actions.let_go(page, held)
        await page.mouse.move(*_NEUTRAL)
        await page.goto(url, wait_until="load")
        goal: str = await page.evaluate("seed => __lab.start(seed)", seed)
        self._state = await page.evaluate("__lab.state()")
        return goal

    def _execute(self, action: act.Action) -> None:
        actions.check(action)
        down = actions.held_after(action, self._held)
        self._held |= down  # an action that fails may have done half of it
        self._call(self._perform(self._running_page(), action))
        self._held = down

    async def _perform(self, page: Page, action: act.Action) -> None:
        from playwright.async_api import Error as PlaywrightError

        await actions.perform(page, action)
        for _ in range(3):
            try:
                await page.wait_for_load_state("load")
                self._state = await page.evaluate("__lab.settle().then(__lab.state)")
                return
            except PlaywrightError as error:  # the action made the page reload itself under our feet
                if _NAVIGATED not in error.message:
                    raise
                await asyncio.sleep(0.05)
        self._state = {"left": True, "done": False, "raw": 0.0}

    def _observe(self) -> Observation:
        png, outline = self._call(self._look(self._running_page()))
        with Image.open(io.BytesIO(png)) as image:
            observation = Observation(screenshot=np.array(image.convert("RGB")))
        if outline is not None:
            observation["accessibility_tree"] = outline
        return observation

    async def _look(self, page: Page) -> tuple[bytes, str | None]:
        png = await _picture(page)
        for _ in range(RETAKES):  # on a busy machine Chromium now and then gives a frame whose lower tiles are still the upper ones
            before, png = png, await _picture(page)
            if png == before:
                break
        return png, await page.evaluate("__lab.outline()") if self._accessibility else None

    def _ended(self) -> bool:
        return bool(self._state["done"] or self._state["left"])

    def _grade(self, last: act.Action | None) -> float:
        assert self._task is not None
        return float(self._state["done"] and tasks.solved(self._task.name, self._state["raw"]))

    def step(self, action: act.Action | tuple[act.Action, ...]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        if terminated or truncated:
            info["raw_reward"] = float(self._state["raw"]) if self._state["done"] else 0.0
        return observation, reward, terminated, truncated, info

    # -- experts ------------------------------------------------------------------------------------------------------------
    def oracle(self) -> tuple[str, tuple[act.Action, ...]] | None:
        reply = self.oracle_reply()
        if reply is None:
            return None
        return str(reply["thought"]), tuple(act.from_json(action) for action in reply["actions"])

    def oracle_reply(self) -> dict[str, Any] | None:
        """The expert's reply as its script gives it: ``thought``, ``actions`` (JSON) and perhaps ``box`` {x, y, w, h} in pixels.

        None without ``oracle=True``, for a task without an expert, and where the expert does not know what to do.
        """
        if not self.oracle_available or self._task is None:
            return None
        return self._call(self._running_page().evaluate("task => __lab.oracle(task)", self._task.name))

    # -- the browser --------------------------------------------------------------------------------------------------------
    def _running_page(self) -> Page:
        if self._page is None:
            raise InfrastructureError("The page of this episode is gone.", "Call reset().", component="browser")
        return self._page

    def _call(self, coroutine: Any) -> Any:
        assert self._browser is not None
        try:
            return self._browser.call(coroutine)
        except InfrastructureError:
            self._running = False
            self._drop_page()
            raise

    def _drop_page(self) -> None:
        page, self._page = self._page, None
        self._held = frozenset()  # a page has its own mouse and keyboard
        if page is not None and self._browser is not None:
            self._browser.close_page(page)

    def _leave_browser(self) -> None:
        self._drop_page()
        browser, self._browser = self._browser, None
        if browser is not None:
            browser.release()

    def close(self) -> None:
        """Close the page, and the browser if no other environment uses it; safe to call twice."""
        self._running = False
        self._leave_browser()
