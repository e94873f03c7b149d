"""The viewer over a run of many attempts: what the first list, a poll, a session and a key cost.

    python benchmarks/viewer.py --attempts 10000 --shots shots

makes a run of made-up attempts in a temporary folder, asks the viewer's server as its page does, and opens the page in headless
Chromium.  CPU seconds are those of the server's process, bytes are before compression.  ``--shots`` keeps pictures of the page.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from PIL import Image

from agentlab.disk import rows
from agentlab.disk.names import folder_name
from agentlab.disk.row import SPLIT, Row, Seconds
from agentlab.disk.runs import session_folders
from agentlab.disk.store import RunStore
from agentlab.run.resolve import resolve
from agentlab.view.server import make_app
from envs import actions as act
from envs.base import TaskSpec
from retrospect.trace import Step, Trace

NAMES = ("click-test", "enter-text", "click-checkboxes", "focus-text", "use-slider", "email-inbox", "login-user", "count-shape")
LENGTHS = (1, 2, 3, 4)
"""Attempts of a session, in turn: the longest fails to its end, the others end in success."""


# -- a large run -------------------------------------------------------------------------------------------------------------------
def make_large_run(folder: Path, attempts: int) -> Path:
    """A run of at least ``attempts`` attempts with small made-up files."""
    settings = resolve({"suite": "miniwob", "policy": "random", "attempts": max(LENGTHS), "out": folder})
    RunStore.open(folder, settings.to_json()).close()
    screen = np.full((210, 160, 3), 255, np.uint8)
    screen[60:90, 10:40] = (200, 0, 0)
    buffer = io.BytesIO()
    Image.fromarray(screen).save(buffer, "WEBP", lossless=True)
    with (folder / "results.jsonl").open("w", encoding="utf-8") as results:
        for spec, length in _sessions(attempts):
            for t in range(1, length + 1):
                row = _attempt(folder, spec, t, buffer.getvalue(), success=t == length < max(LENGTHS), over=t == length)
                results.write(row.line())
    return folder


def _sessions(attempts: int) -> Iterator[tuple[TaskSpec, int]]:
    made = number = 0
    while made < attempts:
        length = LENGTHS[number % len(LENGTHS)]
        yield TaskSpec("agentlab/miniwob-v0", NAMES[number // 3 % len(NAMES)], number, 10, domain="miniwob"), length
        made, number = made + length, number + 1


def _attempt(folder: Path, spec: TaskSpec, t: int, screen: bytes, *, success: bool, over: bool) -> Row:
    here = folder / "sessions" / folder_name(spec.id) / f"attempt_{t:02d}"
    (here / "screens").mkdir(parents=True)
    (here / "screens/000.webp").write_bytes(screen)
    blank, action = np.zeros((1, 1, 3), np.uint8), act.Click(15.0 + 5 * t, 75.0)
    step = Step(
        1, {"screenshot": blank}, "", "The red square is it.", act.describe(action), (action,), tokens=12,
        seconds={"acting": 0.1, "environment": 0.1},
    )  # fmt: skip
    trace = Trace("Click the red square.", [step], {"screenshot": blank}, float(success), "environment", guidance="", attempt=t)
    row = rows.graded(spec, rows.Played(trace, time.perf_counter(), guidance=""), [], success=success, over=over)
    row = row.model_copy(update={"seconds": Seconds(**dict.fromkeys(SPLIT, 0.5)), "memory": {"process": 100.0}})
    events = [
        {"event": "begin", "task": spec.id, "attempt": t, "instruction": trace.instruction, "guidance": "", "seconds": 0.1},
        {
            "event": "step", "index": 1, "screen": "screens/000.webp", "text": "", "thought": step.thought, "action_text": step.action_text,
            "actions": [act.to_json(action)], "invalid": "", "tokens": 12, "logprob": -1.5, "seconds": step.seconds,
        },
        {"event": "end", "screen": "screens/000.webp", "score": float(success), "ended_by": "environment"},
    ]  # fmt: skip
    (here / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), "utf-8")
    (here / "result.json").write_text(row.line(), "utf-8")
    return row


def add_attempt(folder: Path, name: str) -> None:
    """One more session of one attempt, as a run that is going on writes it."""
    buffer = io.BytesIO()
    Image.new("RGB", (160, 210), "white").save(buffer, "WEBP", lossless=True)
    row = _attempt(folder, TaskSpec("agentlab/miniwob-v0", name, 1, 10), 1, buffer.getvalue(), success=True, over=True)
    with (folder / "results.jsonl").open("a", encoding="utf-8") as results:
        results.write(row.line())


# -- measuring ---------------------------------------------------------------------------------------------------------------------
@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The viewer's address, while it runs in this process."""
    server = uvicorn.Server(uvicorn.Config(make_app([folder]), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)


def measure_server(address: str, folder: Path) -> None:
    with httpx.Client(base_url=address, timeout=1800, trust_env=False) as client:

        def ask(what: str, *paths: str) -> Any:
            cpu, wall = time.process_time(), time.perf_counter()
            answers = [client.get(path) for path in paths]
            size = sum(len(answer.content) for answer in answers)
            print(f"| {what} | {time.process_time() - cpu:.3f} | {time.perf_counter() - wall:.3f} | {size} | – |")
            return answers[-1].json()

        run = ask("first list of runs", "/api/index.json")["runs"][0]["id"]
        known = ask("first list of sessions", f"/api/{run}.json")
        poll = ("/api/index.json", f"/api/{run}.json?since={known['version']}")
        ask("poll, nothing new", *poll)
        add_attempt(folder, "newest")
        ask("poll, one more attempt", *poll)
        ask("one session", f"/api/{run}/{known['sessions'][-1]['name']}.json")


def measure_page(address: str, folder: Path, shots: Path | None) -> None:
    from playwright.sync_api import Locator, sync_playwright

    from envs.miniwob.browser import find_browser

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(find_browser()), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})

        def act_and_wait(what: str, do: Callable[[], object], until: Locator) -> None:
            wall = time.perf_counter()
            do()
            until.wait_for()
            nodes = page.evaluate("document.querySelectorAll('*').length")
            print(f"| {what} | – | {time.perf_counter() - wall:.3f} | – | {nodes} |")
            if shots is not None:
                page.screenshot(path=shots / f"{what.replace(' ', '-')}.png")

        page.set_default_timeout(1_800_000)
        chosen = page.locator("#sessions li[aria-current=true]")
        act_and_wait("page opened", lambda: page.goto(address), page.locator(".attempt svg").first)
        act_and_wait("key down", lambda: page.keyboard.press("ArrowDown"), chosen.and_(page.locator("[aria-posinset='2']")))
        last = page.locator(f"[aria-posinset='{len(session_folders(folder))}']")
        act_and_wait("list scrolled to its end", lambda: page.evaluate("document.getElementById('list').scrollTop = 1e9"), last)
        act_and_wait("filtered", lambda: page.fill("#filter", "newest"), page.locator("[aria-setsize='1']"))
        page.close()
        page = browser.new_page(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
        page.set_default_timeout(1_800_000)
        act_and_wait("opened on a phone", lambda: page.goto(address), page.locator(".attempt svg").first)
        act_and_wait(
            "attempt on a phone",
            lambda: page.locator(".attempt").first.scroll_into_view_if_needed(),
            page.locator(".attempt").first,
        )
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=10_000)
    parser.add_argument("--shots", type=Path)
    given = parser.parse_args()
    if given.shots is not None:
        given.shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run = make_large_run(Path(folder) / "large", given.attempts)
        megabytes = (run / "results.jsonl").stat().st_size / 1e6
        print(f"{given.attempts} attempts, {len(session_folders(run))} sessions, results.jsonl of {megabytes:.1f} MB\n")
        print("| | CPU s | wall s | bytes sent | DOM nodes |\n|---|---|---|---|---|")
        with served(run) as address:
            measure_server(address, run)
            measure_page(address, run, given.shots)


if __name__ == "__main__":
    main()
