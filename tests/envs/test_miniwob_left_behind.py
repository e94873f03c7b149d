"""What an attempt leaves behind in the browser is gone when the next one begins."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from envs import actions as act
from envs.base import TaskSpec
from envs.miniwob import tasks
from envs.miniwob.env import MiniWoBEnv

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def env() -> Iterator[MiniWoBEnv]:
    made = MiniWoBEnv()
    yield made
    made.close()


def tabs(env: MiniWoBEnv) -> int:
    return len(env._running_page().context.pages)


def start(env: MiniWoBEnv, name: str, seed: int = 0) -> None:
    env.reset(options={"task": TaskSpec(tasks.ENV_ID, name, seed, 10)})


def evaluate(env: MiniWoBEnv, script: str) -> Any:
    return env._call(env._running_page().evaluate(script))


@pytest.mark.parametrize("held", [("a",), ("shift",), ("ctrl", "shift"), ("?",), ("f5",)])
def test_a_key_that_was_held_is_not_held_in_the_next_attempt(env: MiniWoBEnv, held: tuple[str, ...]) -> None:
    """Only keys with a name were let go: a held letter counted as a repetition, which pages and fields may ignore."""
    start(env, "enter-text")
    env.step(act.KeyDown(held))
    start(env, "enter-text")
    evaluate(env, "window.seen = []; addEventListener('keydown', (e) => seen.push([e.key, e.repeat, e.shiftKey, e.ctrlKey]), true)")
    env.step(act.Hotkey(("a",)))
    env.step(act.Hotkey((held[-1],)))
    pressed = evaluate(env, "window.seen")
    assert pressed[0] == ["a", False, False, False] and pressed[1][1] is False


def test_a_key_that_was_let_go_is_not_let_go_again(env: MiniWoBEnv) -> None:
    start(env, "enter-text")
    env.step((act.KeyDown(("a", "b")), act.KeyUp(("a",)), act.MouseDown(5, 215), act.MouseUp(5, 215)))
    assert env._held == {"b"}
    env.step(act.MouseDown(5, 215))
    start(env, "enter-text")
    assert env._held == frozenset()
    evaluate(env, "window.buttons = []; addEventListener('mousemove', (e) => buttons.push(e.buttons), true)")
    env.step(act.Hover(80, 100))
    assert set(evaluate(env, "window.buttons")) == {0}


OPENS = {
    "middle": (act.MiddleClick(30, 100),),
    "ctrl": (act.KeyDown(("ctrl",)), act.Click(30, 100), act.KeyUp(("ctrl",))),
    "shift": (act.KeyDown(("shift",)), act.Click(30, 100), act.KeyUp(("shift",))),
}


@pytest.mark.parametrize("how", OPENS)
def test_tabs_that_an_agent_opens_are_closed(env: MiniWoBEnv, how: str) -> None:
    """Each middle click on a link left one in the browser that all environments share, until the end of the run."""
    start(env, "click-test")
    before = tabs(env)
    opened: list[Any] = []
    env._running_page().context.on("page", lambda page: opened.append(page))
    link = '<a href="about:blank#x" style="position:fixed; left:0; top:60px; width:150px; height:80px">link</a>'
    evaluate(env, f"document.body.insertAdjacentHTML('beforeend', '{link}')")
    _, _, terminated, _, info = env.step(OPENS[how])
    assert not terminated and "invalid" not in info
    until = time.monotonic() + 30
    while (not opened or tabs(env) > before) and time.monotonic() < until:
        evaluate(env, "new Promise((resolve) => setTimeout(resolve, 100))")
    assert len(opened) == 1 and tabs(env) == before


def test_the_pages_of_environments_are_not_taken_for_such_tabs(env: MiniWoBEnv) -> None:
    start(env, "click-test")
    before = tabs(env)
    others = [MiniWoBEnv() for _ in range(3)]
    try:
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(lambda other: start(other, "click-test"), others))
        assert tabs(env) == before + 3
        for other in others:
            assert other.step(act.Hover(80, 100))[4] == {}
    finally:
        for other in others:
            other.close()
    assert tabs(env) == before


@pytest.mark.parametrize("name", ["enter-date", "enter-time"])
def test_no_picker_of_the_browser_covers_the_page(env: MiniWoBEnv, name: str) -> None:
    """It is drawn only where no other page is in front, so that a run of several workers could not be replayed."""
    start(env, name)
    script = "const box = document.querySelector('input').getBoundingClientRect(); [box.x, box.y, box.right, box.bottom]"
    x, y, right, bottom = evaluate(env, script)
    env.step(act.Click(x + 10, (y + bottom) / 2))
    before = env.step(act.Wait(0.1))[0]["screenshot"]
    for opens in (act.Type(" "), act.Hotkey(("f4",)), act.Hotkey(("alt", "down"))):
        after = env.step(opens)[0]["screenshot"]
        assert (after != before).any(axis=-1).mean() < 0.02, opens  # the first field may be marked otherwise
    env.step(act.Click(right - 10, (y + bottom) / 2))  # where the picker's sign is
    assert (env.step(act.Wait(0.3))[0]["screenshot"] != before).any(axis=-1).mean() < 0.02
