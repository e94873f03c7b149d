"""MiniWoB++ through the real browser: repeatable starts, actions that arrive, scores that are earned."""

from __future__ import annotations

import http.server
import os
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import actions as act
from envs.base import TaskSpec
from envs.errors import UsageError
from envs.miniwob import tasks
from envs.miniwob.env import MiniWoBEnv
from envs.miniwob.suite import MiniWoBSuite

pytestmark = pytest.mark.browser

LONGEST_LIMIT = 10.0
"""Seconds after which the page of click-test ends its episode by itself, unless told not to."""


def spec(name: str, seed: int = 0, max_steps: int = 20) -> TaskSpec:
    return TaskSpec(tasks.ENV_ID, name, seed, max_steps)


def start(env: MiniWoBEnv, name: str, seed: int = 0, max_steps: int = 20) -> tuple[np.ndarray, str]:
    observation, info = env.reset(options={"task": spec(name, seed, max_steps)})
    return observation["screenshot"], info["instruction"]


def evaluate(env: MiniWoBEnv, script: str) -> Any:
    return env._call(env._running_page().evaluate(script))


def middle(env: MiniWoBEnv, selector: str) -> tuple[float, float]:
    box = evaluate(env, f"(() => {{ const b = document.querySelector({selector!r}).getBoundingClientRect();"
                        " return [b.x + b.width / 2, b.y + b.height / 2]; })()")  # fmt: skip
    return float(int(box[0])), float(int(box[1]))


@pytest.fixture(scope="module")
def idle() -> Iterator[tuple[MiniWoBEnv, float]]:
    """An episode that nobody touches while the other tests run, and when it began."""
    env = MiniWoBEnv()
    start(env, "click-test")
    yield env, time.monotonic()
    env.close()


@pytest.fixture(scope="module")
def env(idle: tuple[MiniWoBEnv, float]) -> Iterator[MiniWoBEnv]:
    env = MiniWoBEnv(oracle=True)
    yield env
    env.close()


@pytest.mark.parametrize("options", [{}, {"accessibility": True}])
def test_gymnasium_has_nothing_to_complain_about(options: dict[str, bool]) -> None:
    made = gym.make(tasks.ENV_ID, render_mode="rgb_array", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made.unwrapped)
    made.close()
    made.close()


def test_the_screen_is_the_task_and_white_rows(env: MiniWoBEnv) -> None:
    screen, goal = start(env, "click-test-2", 3)
    assert goal == "Click button ONE."
    assert screen.shape == (220, 160, 3) and screen.dtype == np.uint8
    assert (screen[210:] == 255).all()
    assert (screen[2, 2] == (255, 255, 0)).all(), "the instruction's yellow bar, not the START cover"
    assert (screen[60:205] < 128).any(), "there is something to see below it"


@pytest.mark.parametrize("name", ["click-tab-2", "choose-date", "use-slider", "email-inbox", "text-editor"])
def test_every_attempt_starts_from_the_same_screen(env: MiniWoBEnv, name: str) -> None:
    """Again after a careless attempt, and for another page of the same browser."""
    first, goal = start(env, name, 11)
    for action in (act.Click(80, 100), act.Type("abc"), act.Drag(60, 120, 110, 150), act.Scroll(80, 130, "down")):
        _, _, terminated, _, _ = env.step(action)
        if terminated:
            break
    again, goal_again = start(env, name, 11)
    assert goal == goal_again
    assert np.array_equal(first, again)
    other_seed, other_goal = start(env, name, 12)
    assert other_goal != goal or not np.array_equal(first, other_seed)


def test_typing_and_keys_reach_the_field(env: MiniWoBEnv) -> None:
    before, _ = start(env, "enter-text")
    observation, *_ = env.step((act.Click(*middle(env, "#tt")), act.Type("naïve ❤ one")))
    assert evaluate(env, "document.querySelector('#tt').value") == "naïve ❤ one"
    assert not np.array_equal(before, observation["screenshot"])
    env.step((act.Hotkey(("ctrl", "a")), act.Hotkey(("backspace",)), act.Type("xy"), act.Hotkey(("left",)), act.Type("-")))
    assert evaluate(env, "document.querySelector('#tt').value") == "x-y"
    env.step((act.Hotkey(("end",)), act.Hotkey(("shift", "home")), act.Hotkey(("delete",))))
    assert evaluate(env, "document.querySelector('#tt').value") == ""


def test_lines_and_submit(env: MiniWoBEnv) -> None:
    start(env, "copy-paste")
    env.step((act.Click(*middle(env, "textarea")), act.Hotkey(("ctrl", "a")), act.Type("one\ntwo", submit=True)))
    assert evaluate(env, "document.querySelector('textarea').value") == "one\ntwo\n"


def test_the_clipboard_belongs_to_the_attempt(env: MiniWoBEnv) -> None:
    start(env, "copy-paste")
    copy = (act.Click(*middle(env, "textarea")), act.Hotkey(("ctrl", "a")), act.Hotkey(("ctrl", "c")))
    paste = (act.Click(*middle(env, "#answer-input")), act.Hotkey(("ctrl", "v")))
    value = "document.querySelector('#answer-input').value"
    env.step(copy + paste)
    assert evaluate(env, value) == evaluate(env, "document.querySelector('textarea').value").replace("\n", "") != ""
    start(env, "copy-paste")
    env.step(paste)
    assert evaluate(env, value) == ""


def test_a_drag_selects_and_a_double_click_selects_a_word(env: MiniWoBEnv) -> None:
    start(env, "highlight-text")
    env.step(act.Drag(4, 60, 150, 60))
    assert len(evaluate(env, "String(getSelection())")) > 5
    env.step(act.DoubleClick(20, 60))
    assert len(evaluate(env, "String(getSelection())").split()) == 1


def test_scrolling_shows_what_lies_in_that_direction(env: MiniWoBEnv) -> None:
    before, _ = start(env, "scroll-text-2")
    x, y = middle(env, "textarea")
    top = "document.querySelector('textarea').scrollTop"
    observation, *_ = env.step(act.Scroll(x, y, "down"))
    down = evaluate(env, top)
    assert down > 0 and not np.array_equal(before, observation["screenshot"])
    env.step(act.Scroll(x, y, "up"))
    assert evaluate(env, top) < down
    env.step(act.Scroll(x, y, "down", clicks=100))
    assert evaluate(env, f"{top} + document.querySelector('textarea').clientHeight") == pytest.approx(
        evaluate(env, "document.querySelector('textarea').scrollHeight"), abs=2
    )


def test_hover_and_right_click(env: MiniWoBEnv) -> None:
    before, _ = start(env, "click-menu")
    observation, *_ = env.step(act.Hover(*middle(env, "#menu > li")))
    assert not np.array_equal(before, observation["screenshot"]), "the item under the pointer is marked"
    evaluate(env, "document.addEventListener('contextmenu', (event) => { window.asked = [event.clientX, event.clientY]; })")
    env.step(act.RightClick(30, 190))
    assert evaluate(env, "window.asked") == [30, 190]


def test_a_key_that_does_not_exist_costs_a_step_and_does_nothing(env: MiniWoBEnv) -> None:
    start(env, "enter-text", max_steps=2)
    _, reward, terminated, truncated, info = env.step(act.Hotkey(("ctrl", "hyper")))
    assert "'hyper'" in info["invalid"] and (reward, terminated, truncated) == (0.0, False, False)
    _, reward, terminated, truncated, info = env.step(act.Answer("42"))
    assert "invalid" in info and (reward, terminated, truncated) == (0.0, False, True)
    assert info["ended_by"] == "budget"


def test_the_score_comes_at_the_end_and_the_last_screen_is_the_page(env: MiniWoBEnv) -> None:
    start(env, "enter-text", 5)
    rewards = []
    while True:
        reply = env.oracle()
        assert reply is not None
        observation, reward, terminated, truncated, info = env.step(reply[1])
        rewards.append(reward)
        if terminated or truncated:
            break
    assert rewards == [0.0, 0.0, 1.0] and terminated
    assert (info["score"], info["raw_reward"], info["ended_by"]) == (1.0, 1.0, "environment")
    assert (observation["screenshot"][2, 2] == (255, 255, 0)).all()
    with pytest.raises(UsageError):
        env.step(act.Wait())


def test_partial_credit_is_no_success(env: MiniWoBEnv) -> None:
    """click-checkboxes pays for every box that is as it should be."""
    for seed in range(20):
        start(env, "click-checkboxes-large", seed)
        _, reward, terminated, _, info = env.step(act.Click(*middle(env, "#subbtn")))
        if info["raw_reward"] > 0:
            break
    assert terminated and 0 < info["raw_reward"] < 1
    assert reward == info["score"] == 0.0


def test_an_agent_that_does_nothing_solves_nothing(env: MiniWoBEnv) -> None:
    """Neither declaring success nor a click beside the task is worth anything, on any task of the default suite.

    ``AGENTLAB_EVERY_TASK=1``: nor on any that has an expert.
    """
    names = MiniWoBSuite("experts" if os.environ.get("AGENTLAB_EVERY_TASK") else "core").task_names()
    assert len(names) >= 36
    for seed, name in enumerate(names):
        start(env, name, seed)
        _, score, terminated, _, info = env.step((act.Click(1, 218), act.Finished()))
        assert terminated and score == info["score"] == 0.0, name


def test_leaving_the_page_ends_the_attempt_and_not_the_run(env: MiniWoBEnv) -> None:
    start(env, "click-test")
    evaluate(env, "setTimeout(() => location.reload(), 10)")
    _, score, terminated, _, info = env.step(act.Wait())
    assert (score, terminated, info["ended_by"], info["raw_reward"]) == (0.0, True, "environment", 0.0)


def test_the_outline_is_there_only_when_asked_for(env: MiniWoBEnv) -> None:
    observation, _ = env.reset(seed=0)
    assert set(observation) == set(env.observation_space) == {"screenshot"}
    told = MiniWoBEnv(accessibility=True)
    observation, info = told.reset(options={"task": spec("click-button", 1)})
    assert observation in told.observation_space
    wanted = info["instruction"].split('"')[1]
    assert f'button "{wanted}" @' in observation["accessibility_tree"]
    told.close()


def test_the_page_has_no_network(env: MiniWoBEnv) -> None:
    served: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.append(self.path)
            self.send_response(204)
            self.end_headers()

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        start(env, "click-test")
        url = f"http://127.0.0.1:{server.server_port}/"
        assert evaluate(env, f"fetch('{url}', {{mode: 'no-cors'}}).then(() => 'reached', () => 'blocked')") == "blocked"
        assert served == []
    finally:
        server.shutdown()
        server.server_close()


def test_unknown_tasks_are_named(env: MiniWoBEnv) -> None:
    with pytest.raises(UsageError, match="Did you mean 'click-test'"):
        start(env, "click-tset")


def test_no_clock_is_running(idle: tuple[MiniWoBEnv, float]) -> None:
    """Left alone for longer than the page's own limit, the episode is still open and worth the full reward."""
    env, began = idle
    time.sleep(max(0.0, LONGEST_LIMIT + 1 - (time.monotonic() - began)))
    _, reward, terminated, _, info = env.step(act.Click(*middle(env, "#subbtn")))
    assert (reward, terminated, info["raw_reward"]) == (1.0, True, 1.0)
