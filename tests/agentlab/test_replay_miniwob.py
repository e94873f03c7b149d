"""Real MiniWoB++ tasks, solved by their experts and replayed: everything comes out again, and what is tampered with shows.

An instance of each task of the default suite; ``AGENTLAB_REPLAYED=100`` (or more) replays that many instances.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agentlab.replay.replay import Options, replay_all
from agentlab.replay.targets import find_target
from agentlab.run.resolve import resolve
from agentlab.run.runner import Runner
from envs.errors import SetupError
from envs.miniwob.browser import find_browser
from envs.miniwob.tasks import CORE

pytestmark = pytest.mark.browser
TASKS = int(os.environ.get("AGENTLAB_REPLAYED", len(CORE)))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    try:
        find_browser()
    except SetupError as error:
        pytest.skip(f"{error.message} {error.hint}")
    folder = tmp_path_factory.mktemp("runs") / "recorded"
    Runner(resolve({"suite": "miniwob", "policy": "scripted", "attempts": 1, "limit": TASKS, "out": folder})).run()
    return folder


def replay(path: Path, **options):
    return replay_all(find_target(path), Options(solved=True, **options), {}, print)[0]


def test_every_solved_attempt_is_reproduced(recorded):
    rows = [json.loads(line) for line in (recorded / "results.jsonl").read_text().splitlines()]
    solved = {f"{row['task']}": row["score"] for row in rows if row["success"]}
    assert len(rows) == TASKS and len(solved) >= 0.97 * TASKS  # the experts know what they do
    found = replay(recorded)
    assert {one.session: one.score for one in found} == solved
    assert [one.session for one in found if not one.reproduced or one.unseen] == []
    assert sum(one.compared for one in found) == sum(row["steps"] + 1 for row in rows if row["success"])


def longest(run: Path) -> Path:
    """The solved attempt with the most steps; a click is among its last ones."""
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    row = max((r for r in rows if r["success"]), key=lambda r: r["steps"])
    return run / "sessions" / row["task"] / "attempt_01"


def test_a_tampered_action_and_a_tampered_screen_are_found_at_their_step(recorded):
    folder = longest(recorded)
    events = folder / "events.jsonl"
    original = events.read_text()
    lines = [json.loads(line) for line in original.splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    place = len(steps) // 2
    assert len(steps) >= 3
    steps[place]["actions"] = [{"kind": "wait"}]
    events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (one,) = replay(folder)
    assert one.divergence is not None and one.divergence.after == place + 1 and not one.reproduced
    events.write_text(original)

    path = folder / steps[place]["screen"]
    kept, picture = path.read_bytes(), np.asarray(Image.open(path).convert("RGB")).copy()
    picture[100, 80] ^= 255
    Image.fromarray(picture).save(path, lossless=True)
    (two,) = replay(folder)
    path.write_bytes(kept)
    assert two.divergence is not None and two.divergence.after == place and two.score == two.recorded
    (again,) = replay(folder)
    assert again.reproduced
