"""How each action of the vocabulary is done with Playwright's mouse and keyboard."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from envs import actions as act
from envs.errors import InvalidActionError

if TYPE_CHECKING:
    from playwright.async_api import Page

KINDS = (
    act.Click, act.DoubleClick, act.TripleClick, act.RightClick, act.MiddleClick, act.Hover, act.Drag, act.MouseDown, act.MouseUp,
    act.Type, act.Hotkey, act.KeyDown, act.KeyUp, act.Scroll, act.Wait, act.Finished, act.Fail,
)  # fmt: skip

CLICKS = (act.Click, act.DoubleClick, act.TripleClick, act.RightClick, act.MiddleClick)
CLICKS_OF: dict[type[act.Action], tuple[Literal["left", "middle", "right"], int]] = {
    act.Click: ("left", 1), act.DoubleClick: ("left", 2), act.TripleClick: ("left", 3), act.RightClick: ("right", 1),
    act.MiddleClick: ("middle", 1),
}  # fmt: skip
BUTTON = "left button"
"""Among the names of keys that are held."""
HELD = (act.MouseDown, act.MouseUp, act.KeyDown, act.KeyUp)

WAIT_SECONDS = 0.5
MOST_WAIT_SECONDS = 2.0
"""A longer wait that the agent asks for is cut to this: no page of MiniWoB++ takes longer."""
SCROLL_PIXELS = 60
"""Per scroll action; the scrollable boxes of the tasks are 90 to 150 pixels high, so nothing is skipped unseen."""
CLICK_PIXELS = 53
"""Per click of the wheel, where the agent gives a number of them: as far as Chromium scrolls on Linux."""

MAX_TYPED = 2000
DRAG_MOVES = 8

KEYS: dict[str, str] = {
    # On a Mac the editing shortcuts are with Command; models say ctrl.
    "ctrl": "ControlOrMeta", "control": "ControlOrMeta", "alt": "Alt", "shift": "Shift",
    "win": "Meta", "meta": "Meta", "cmd": "Meta", "command": "Meta", "super": "Meta",
    "enter": "Enter", "return": "Enter", "esc": "Escape", "escape": "Escape", "tab": "Tab", "space": "Space",
    "backspace": "Backspace", "delete": "Delete", "del": "Delete", "insert": "Insert", "home": "Home", "end": "End",
    "pageup": "PageUp", "page_up": "PageUp", "pagedown": "PageDown", "page_down": "PageDown",
    "up": "ArrowUp", "down": "ArrowDown", "left": "ArrowLeft", "right": "ArrowRight",
    "arrowup": "ArrowUp", "arrowdown": "ArrowDown", "arrowleft": "ArrowLeft", "arrowright": "ArrowRight",
    "capslock": "CapsLock", "menu": "ContextMenu", "pause": "Pause",
    **{f"f{n}": f"F{n}" for n in range(1, 13)},
}  # fmt: skip


def key_name(name: str) -> str:
    """Playwright's name of a key.

    Raises:
        InvalidActionError: no such key.
    """
    known = KEYS.get(name.lower())
    if known is not None:
        return known
    if len(name) == 1 and name.isascii() and name.isprintable() and name != " ":
        return name
    raise InvalidActionError(f"There is no key {name!r}.")


def check(action: act.Action) -> None:
    """Refuse what cannot be executed before anything is.

    Raises:
        InvalidActionError: unknown key, no key at all, or too much text.
    """
    if isinstance(action, act.Hotkey | act.KeyDown | act.KeyUp):
        if not action.keys:
            raise InvalidActionError("A hotkey needs at least one key.")
        for key in action.keys:
            key_name(key)
    if isinstance(action, act.Type) and len(action.text) > MAX_TYPED:
        raise InvalidActionError(f"Text of {len(action.text)} characters is longer than the {MAX_TYPED} that can be typed at once.")


async def perform(page: Page, action: act.Action) -> None:
    """Do one action with the page's mouse and keyboard; the page has not settled yet when this returns."""
    mouse = page.mouse
    if isinstance(action, CLICKS):
        button, count = CLICKS_OF[type(action)]
        await mouse.click(action.x, action.y, button=button, click_count=count)
        return
    if isinstance(action, HELD):
        await _hold(page, action)
        return
    match action:
        case act.Hover(x, y):
            await mouse.move(x, y, steps=3)  # some menus compare the pointer's last two places
        case act.Drag(x, y, end_x, end_y):
            await _drag(page, (x, y), (end_x, end_y))
        case act.Type(text, submit):
            await page.keyboard.type(act.lines(text))
            if submit:
                await page.keyboard.press("Enter")
        case act.Hotkey(keys):
            await _chord(page, [key_name(key) for key in keys])
        case act.Scroll(x, y, direction):
            dx, dy = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}[direction]
            await mouse.move(x, y)
            far = SCROLL_PIXELS if action.clicks is None else action.clicks * CLICK_PIXELS
            await mouse.wheel(dx * far, dy * far)
        case act.Wait(seconds):
            await asyncio.sleep(WAIT_SECONDS if seconds is None else min(seconds, MOST_WAIT_SECONDS))
        case _:
            raise InvalidActionError(f"MiniWoB++ has no action {action.kind!r}.")


async def _hold(page: Page, action: act.Action) -> None:
    """Press and keep down, or let go."""
    match action:
        case act.MouseDown(x, y):
            await page.mouse.move(x, y)
            await page.mouse.down()
        case act.MouseUp(x, y):
            await page.mouse.move(x, y, steps=DRAG_MOVES)
            await page.mouse.up()
        case act.KeyDown(keys):
            for key in keys:
                await page.keyboard.down(key_name(key))
        case act.KeyUp(keys):
            for key in reversed(keys):
                await page.keyboard.up(key_name(key))


def held_after(action: act.Action, before: frozenset[str]) -> frozenset[str]:
    """What may be down after ``action``: Playwright's names of keys, and ``BUTTON``."""
    match action:
        case act.KeyDown(keys):
            return before | {key_name(key) for key in keys}
        case act.KeyUp(keys):
            return before - {key_name(key) for key in keys}
        case act.MouseDown():
            return before | {BUTTON}
        case act.MouseUp():
            return before - {BUTTON}
    return before


async def let_go(page: Page, held: frozenset[str]) -> None:
    """Release what an episode has left down."""
    if BUTTON in held:
        await page.mouse.up()
    for key in sorted(held - {BUTTON}):
        await page.keyboard.up(key)


async def _drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    await page.mouse.move(*start)
    await page.mouse.down()
    try:
        await page.mouse.move(*end, steps=DRAG_MOVES)
    finally:
        await page.mouse.up()


async def _chord(page: Page, keys: list[str]) -> None:
    held: list[str] = []
    try:
        for key in keys:
            await page.keyboard.down(key)
            held.append(key)
    finally:
        for key in reversed(held):
            await page.keyboard.up(key)
