"""The shared browser: it is found or its absence explained, it is shared, its death is survived, and it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from envs import actions as act
from envs.base import TaskSpec
from envs.errors import InfrastructureError, SetupError
from envs.miniwob import tasks
from envs.miniwob.browser import ENV_VAR, Browser, find_browser
from envs.miniwob.env import MiniWoBEnv
from envs.miniwob.setup import ensure_browser

pytestmark = pytest.mark.browser

PROMPT = 10.0
"""Seconds within which a death is noticed: far below the bound on a call."""


def reset(env: MiniWoBEnv, name: str = "click-test", seed: int = 0) -> tuple[bytes, str]:
    observation, info = env.reset(options={"task": TaskSpec(tasks.ENV_ID, name, seed, 10)})
    return observation["screenshot"].tobytes(), info["instruction"]


def browser_of(env: MiniWoBEnv) -> Browser:
    assert env._browser is not None
    return env._browser


def alive(tag: str) -> bool:
    return any(tag in (process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))


def gone_within(tag: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(tag) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not alive(tag)


def test_a_killed_browser_voids_the_episode_and_the_next_reset_recovers() -> None:
    env, neighbour = MiniWoBEnv(), MiniWoBEnv()
    try:
        first = reset(env, "click-tab-2", 7)
        reset(neighbour)
        killed = browser_of(env)
        (main,) = killed.processes()
        main.send_signal(signal.SIGKILL)
        started = time.monotonic()
        for victim in (env, neighbour):
            with pytest.raises(InfrastructureError) as failure:
                victim.step(act.Click(80, 100))
            assert failure.value.component == "browser"
        assert time.monotonic() - started < PROMPT
        assert reset(env, "click-tab-2", 7) == first, "the same start from another browser process"
        reset(neighbour)
        assert browser_of(env) is browser_of(neighbour) is not killed
        assert not alive(killed.tag)
    finally:
        env.close()
        neighbour.close()


@pytest.mark.parametrize("victim", ["renderer", "driver"])
def test_the_death_of_a_part_is_survived_too(victim: str) -> None:
    env = MiniWoBEnv()
    try:
        reset(env)
        mark = {"renderer": "--type=renderer", "driver": "run-driver"}[victim]
        parts = [child for child in psutil.Process().children(recursive=True) if mark in " ".join(child.cmdline())]
        assert parts
        for part in parts:
            part.kill()
        with pytest.raises(InfrastructureError):
            env.step(act.Click(80, 100))
        reset(env)
        _, reward, terminated, truncated, _ = env.step(act.Wait())
        assert (reward, terminated, truncated) == (0.0, False, False)
    finally:
        env.close()


def test_a_page_that_hangs_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser was given up for one page's endless loop, and with it the attempts of all workers."""
    call = Browser.call
    env, neighbour = MiniWoBEnv(), MiniWoBEnv()
    try:
        reset(env)
        reset(neighbour)
        shared = browser_of(env)
        env._call(env._running_page().evaluate("document.addEventListener('click', () => { while (true) {} })"))
        monkeypatch.setattr(Browser, "call", lambda self, work, seconds=PROMPT: call(self, work, seconds))
        with pytest.raises(InfrastructureError, match="page did not answer"):
            env.step(act.Click(80, 100))
        monkeypatch.undo()
        assert shared.alive and neighbour.step(act.Wait())[4] == {}
        reset(env)
        assert browser_of(env) is shared and env.step(act.Wait())[4] == {}
    finally:
        env.close()
        neighbour.close()


def test_a_browser_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Browser.call
    env = MiniWoBEnv()
    try:
        reset(env)
        hung = browser_of(env)
        (main,) = hung.processes()
        main.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(Browser, "call", lambda self, work, seconds=PROMPT: call(self, work, min(seconds, 2.0)))
        with pytest.raises(InfrastructureError, match="browser did not answer"):
            env.step(act.Click(80, 100))
        assert not hung.alive
        monkeypatch.undo()
        reset(env)
        assert browser_of(env) is not hung and not alive(hung.tag)
    finally:
        env.close()


def test_two_threads_share_one_browser() -> None:
    env, other = MiniWoBEnv(oracle=True), MiniWoBEnv(oracle=True)
    jobs = {env: ["click-tab-2", "enter-text", "click-menu"], other: ["click-option", "click-checkboxes", "use-slider"]}
    scores: dict[str, float] = {}

    def work(mine: MiniWoBEnv) -> None:
        for name in jobs[mine]:
            reset(mine, name, 1)
            over = False
            while not over:
                reply = mine.oracle()
                assert reply is not None
                _, scores[name], terminated, truncated, _ = mine.step(reply[1])
                over = terminated or truncated

    try:
        threads = [threading.Thread(target=work, args=(mine,)) for mine in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert scores == {name: 1.0 for names in jobs.values() for name in names}
        shared = browser_of(env)
        assert shared is browser_of(other) and len(shared.processes()) == 1
        env.close()
        env.close()
        reset(other)
        assert browser_of(other) is shared, "closing one environment leaves the browser to the other"
    finally:
        env.close()
        other.close()
    assert gone_within(shared.tag, PROMPT), "the last one out closes the browser"


INTERRUPTED = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from envs.miniwob.env import MiniWoBEnv
env = MiniWoBEnv()
env.reset(seed=0)
print(env._browser.tag, flush=True)
{then}
"""


@pytest.mark.parametrize(
    ("then", "number"),
    [
        ("while True: env.reset(seed=1)", signal.SIGINT),
        ("while True: time.sleep(0.1)", signal.SIGKILL),
        ("raise RuntimeError('a mistake')", None),
    ],
    ids=["ctrl-c", "kill -9", "exception"],
)
def test_no_browser_survives_its_process(then: str, number: signal.Signals | None) -> None:
    script = INTERRUPTED.format(then=then)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        tag = process.stdout.readline().strip()
        assert tag.startswith("--agentlab-browser=")
        if number is not None:
            assert alive(tag)
            process.send_signal(number)
        assert process.wait(60) != 0
    assert gone_within(tag, 30)


def test_a_missing_browser_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ENV_VAR, "/nonexistent")
    with pytest.raises(SetupError, match=f"{ENV_VAR} is '/nonexistent'") as failure:
        MiniWoBEnv().reset(seed=0)
    for remedy in ("agentlab setup miniwob", "install", ENV_VAR):
        assert remedy in failure.value.hint
    with pytest.raises(SetupError, match="/nowhere/chrome"):
        find_browser("/nowhere/chrome")
    monkeypatch.delenv(ENV_VAR)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    with pytest.raises(SetupError, match="No Chromium-based browser was found"):
        find_browser()


def test_something_that_is_no_browser_is_explained(tmp_path: Path) -> None:
    fake = tmp_path / "chromium"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(SetupError, match="did not start"):
        MiniWoBEnv(browser=str(fake)).reset(seed=0)


def test_setup_finds_and_tries_the_browser_that_is_there() -> None:
    told: list[str] = []
    assert ensure_browser(told.append) == find_browser()
    assert "works: it showed a 160x220 page" in told[-1]


def test_importing_the_environments_does_not_import_the_browser() -> None:
    code = "import sys, envs.suites, envs.miniwob.env; sys.exit('playwright' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False).returncode == 0
