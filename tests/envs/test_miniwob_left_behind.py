"""What an attempt leaves behind in the browser is gone when the next one begins."""

from __future__ import annotations

from collections.abc import Iterator
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
