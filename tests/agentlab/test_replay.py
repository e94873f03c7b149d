"""Replays of real sessions in a small world: what was recorded comes out again, and what was tampered with is found at its step."""

import json
from threading import Event

import numpy as np
import pytest
from PIL import Image
from small_world import DoorEnv, DoorPolicy, door

from agentlab.cli import app as cli
from agentlab.disk.runs import read_run
from agentlab.disk.store import RunStore
from agentlab.replay import report as replay_report
from agentlab.replay.masks import differing_share, parse_mask
from agentlab.replay.replay import Options, Replayer, replay_all
from agentlab.replay.targets import find_target, safe_options
from agentlab.run.resolve import resolve
from agentlab.run.session import Session
from envs.base import TaskSpec, TaskSuite
from envs.benchmark import Benchmark
from envs.errors import InfrastructureError, StoreError, UsageError
from envs.registration import own_benchmarks
from envs.slot import EnvSlot
from envs.suites import choices


class Doors(TaskSuite):
    name = "doors"

    def task_names(self):
        return ["door"]

    def instances(self, names, seed):
        return iter([door(n) for n in range(3)])


class DoorsBenchmark(Benchmark):
    name = "doors"
    environment = DoorEnv

    def suite(self, part=""):
        return Doors()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Doors 0, 1 and 2, opened at attempts 1, 2 and 3: six attempts."""
    monkeypatch.setitem(own_benchmarks(), "doors", DoorsBenchmark())
    monkeypatch.setattr(DoorEnv, "faults", [])
    config = resolve({"suite": "doors", "attempts": 4, "adapt": {"preset": "rosa"}, "env": {}})
    store, envs = RunStore.open(tmp_path / "run", config.to_json()), EnvSlot({})
    for number in range(3):
        task = door(number)
        session = store.session(task.id)
        Session(task, config=config, policy=DoorPolicy(), words=None, envs=envs, store=session, stop=Event(), memory=dict).run(
            lambda row: None
        )
    envs.close()
    store.close()
    return tmp_path / "run"


def replayed(path, **options):
    target = find_target(path)
    replayer = Replayer(target.run, Options(**{"patience": 0.0} | options))
    try:
        found = [replayer.replay(session, attempt) for session, attempt in target.attempts()]
    finally:
        replayer.close()
    assert DoorEnv.opened == DoorEnv.closed
    return [one for one in found if one is not None]


def test_every_attempt_is_reproduced(run):
    found = replayed(run)
    assert [(r.session, r.attempt, r.score) for r in found] == [
        ("door_0", 1, 1.0), ("door_1", 1, 0.0), ("door_1", 2, 1.0), ("door_2", 1, 0.0), ("door_2", 2, 0.0), ("door_2", 3, 1.0),
    ]  # fmt: skip
    assert all(r.reproduced and r.compared == 3 for r in found)
    assert [(r.session, r.attempt) for r in replayed(run, solved=True)] == [("door_0", 1), ("door_1", 2), ("door_2", 3)]
    assert [(r.session, r.attempt) for r in replayed(run / "door_2")] == [("door_2", n) for n in (1, 2, 3)]
    assert [(r.session, r.attempt) for r in replayed(run / "door_2/03")] == [("door_2", 3)]
    assert [(r.session, r.attempt) for r in replayed(run / "sessions/door_2/attempt_02")] == [("door_2", 2)]


def tamper(run, attempt, change):
    path = run / f"sessions/{attempt}/events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    change(events)
    path.write_text("".join(json.dumps(event) + "\n" for event in events))


def test_a_tampered_action_is_found_where_its_screen_shows(run, tmp_path):
    tamper(run, "door_1/attempt_02", lambda events: events[1]["actions"][0].update(x=75.0))
    (one,) = replayed(run / "door_1/2")
    assert (one.divergence.after, one.score, one.recorded, one.reproduced) == (1, 0.0, 1.0, False)
    assert "25.00% of the screen differs" in one.divergence.what
    (stopped,) = replayed(run / "door_1/2", stop=True)
    assert (stopped.divergence.after, stopped.score) == (1, None)
    replay_report.write(tmp_path / "out", "Replay", [one])
    line = json.loads((tmp_path / "out/replay.json").read_text())["attempts"][0]
    assert (line["diverged_after"], line["score_recorded"], line["score_replayed"]) == (1, 1.0, 0.0)
    picture = np.asarray(Image.open(tmp_path / "out/door_1_2.png").convert("L"))
    assert picture.shape == (10, 3 * 80 + 16) and (picture[:, 176:] == 0).sum() == 200  # door 1 and door 7, black


@pytest.mark.parametrize(("screen", "after"), [("000", 0), ("001", 1)])
def test_a_tampered_screen_is_found_at_its_step(run, screen, after):
    path = run / f"sessions/door_2/attempt_03/screens/{screen}.webp"
    picture = np.asarray(Image.open(path)).copy()
    picture[4, 77] = 90
    Image.fromarray(picture).save(path, lossless=True)
    (one,) = replayed(run / "door_2/3")
    assert one.divergence.after == after and one.score == 1.0
    (masked,) = replayed(run / "door_2/3", masks=((76, 3, 4, 4),))
    (tolerated,) = replayed(run / "door_2/3", tolerance=90)
    (shared,) = replayed(run / "door_2/3", share=0.01)
    assert masked.reproduced and tolerated.reproduced and shared.reproduced


def test_a_tampered_score_instruction_and_length_are_found(run):
    result = run / "sessions/door_0/attempt_01/result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"score": 0.5}))
    (score,) = replayed(run / "door_0")
    assert score.divergence is None and not score.reproduced
    tamper(run, "door_1/attempt_01", lambda events: events[0].update(instruction="Open all doors"))
    tamper(run, "door_1/attempt_02", lambda events: events.insert(1, events[1]))
    one, two = replayed(run / "door_1")
    assert one.divergence.after == 0 and "Open door 1" in one.divergence.what
    assert two.divergence is not None and two.score == 1.0


def test_missing_screens_are_counted_and_torn_records_are_named(run):
    (run / "sessions/door_0/attempt_01/screens/001.webp").unlink()
    (run / "sessions/door_1/attempt_01/events.jsonl").write_text('{"event": "begin", "task": "door_1"}\n{"event": "st')
    (run / "sessions/door_2/attempt_03/result.json").unlink()  # being made
    tamper(run, "door_2/attempt_01", lambda events: events[1]["actions"][0].update(kind="rm -rf"))
    tamper(run, "door_2/attempt_02", lambda events: events[0].update(task="elsewhere_9"))
    found = {(r.session, r.attempt): r for r in replayed(run)}
    first = found["door_0", 1]
    assert (first.compared, first.unseen, first.reproduced) == (1, 2, True)
    assert "no end" in found["door_1", 1].failure
    assert "Unknown action kind" in found["door_2", 1].failure
    assert "elsewhere_9" in found["door_2", 2].failure
    assert ("door_2", 3) not in found


def test_the_machinery_is_given_a_second_chance_and_then_named(run):
    DoorEnv.faults = ["observe"]
    assert replayed(run / "door_0")[0].reproduced
    DoorEnv.faults = ["observe", "grade", "start"]
    (one,) = replayed(run / "door_0")
    assert one.machinery and "door" in one.failure and one.divergence is None


def test_what_changes_by_itself_does_not_count(run, monkeypatch):
    """A cursor blinks at the left edge, a clock runs in the corner; of a cursor that stays different the step is told."""
    seen, real = [0], DoorEnv._observe

    def observe(env):
        seen[0] += 1
        observation = real(env)
        if seen[0] % 2:
            observation["screenshot"][2:8, 1] = 77  # the cursor blinks
        observation["screenshot"][:3, 70:] = seen[0] % 250 + 1  # tells the time
        return observation

    monkeypatch.setattr(DoorEnv, "_observe", observe)
    (clock,) = replayed(run / "door_0", patience=5.0)
    assert clock.divergence is not None and clock.divergence.after == 0
    monkeypatch.setattr(DoorEnv, "restless", lambda env: ((70, 0, 10, 3),))
    (masked,) = replayed(run / "door_0", patience=5.0)
    assert masked.reproduced and masked.compared == 3
    (hasty,) = replayed(run / "door_0", masks=((0, 0, 0, 0),))
    assert hasty.divergence is not None
    (whole,) = replayed(run / "door_0", whole=True, patience=0.5)
    assert whole.divergence is not None and whole.divergence.masks == ()


def test_tasks_in_files_are_taken_only_from_the_user(run):
    path = run / "config.json"
    config = json.loads(path.read_text())
    config["config"]["suite"] = "osworld:/somewhere/of/a/stranger"
    path.write_text(json.dumps(config))
    with pytest.raises(UsageError, match="tasks of this run are files") as refused:
        replayed(run)
    assert "--suite" in refused.value.hint and "desktop" not in refused.value.hint  # they may be questions
    with pytest.raises(UsageError, match="no such file"):
        Replayer(find_target(run).run, Options(), suite=str(run / "nothing"))
    config["config"]["suite"] = "doors"
    path.write_text(json.dumps(config))
    with pytest.raises(UsageError, match="which has its tasks"):
        Replayer(find_target(run).run, Options(), suite="mine")


def test_what_a_stranger_may_not_switch_on():
    recorded = {
        "provider": "official",
        "screen": [800, 600],
        "run_agent_code": True,
        "spares": 999,
        "timing": "brisk",
        "disk": None,
    }
    assert safe_options(recorded, {}, *choices(TaskSpec("agentlab/osworld-v0", "x", 0, 1))) == (
        {"provider": "official", "screen": [800, 600], "timing": "brisk", "disk": None},
        ["run_agent_code", "spares"],
    )
    phone = {
        "provider": "10.0.0.1:5000",
        "scroll": "finger",
        "settle": "none",
        "demonstrations": "/etc/passwd",
        "wait_seconds": 0.5,
    }
    assert safe_options(phone, {}, *choices(TaskSpec("agentlab/androidworld-v0", "x", 0, 1))) == (
        {"scroll": "finger", "settle": "none", "wait_seconds": 0.5},
        ["demonstrations", "provider"],
    )


def test_machinery_that_cannot_be_closed_does_not_lose_the_report(run, monkeypatch):
    def stuck(env):
        raise InfrastructureError("The door is stuck.", component="door")

    monkeypatch.setattr(DoorEnv, "close", stuck)
    said = []
    done, _ = replay_all(find_target(run / "door_0"), Options(), {}, said.append)
    assert [one.reproduced for one in done] == [True] and said == ["The door is stuck."]


def test_options_of_a_strangers_run_cannot_name_programs():
    recorded = {"browser": "/tmp/evil", "image": "evil:latest", "accessibility": True, "width": 5, "nested": {"a": 1}}
    assert safe_options(recorded, {"image": "mine"}) == (
        {"accessibility": True, "width": 5, "image": "mine"},
        ["browser", "nested"],
    )


@pytest.mark.parametrize("path", ["nothing", "door_9", "door_1/9", "door_1/attempt_09", "door_1/x", "../.."])
def test_targets_that_do_not_exist_are_refused(run, path):
    with pytest.raises((UsageError, StoreError)):
        find_target(run / path)


def test_masks():
    assert parse_mask("1,2,3,4") == (1, 2, 3, 4)
    for text in ("1,2,3", "a,b,c,d", "-1,0,2,2"):
        with pytest.raises(UsageError, match="rectangle"):
            parse_mask(text)
    a, b = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)
    assert differing_share(a, b) == 1 and differing_share(a, a, masks=((0, 0, 9, 9),)) == 0


def test_the_exit_code_says_whether_all_was_reproduced(run, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["agentlab", "replay", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0, capsys.readouterr()

    code, shown = call(run)
    assert code == 0 and "reproduced" in shown.out and (run / "replay/replay.html").exists()
    tamper(run, "door_1/attempt_02", lambda events: events[1]["actions"][0].update(x=75.0))
    code, shown = call(run)
    assert code == 1 and "door_1/2: 25.00% of the screen differs" in shown.err
    DoorEnv.faults = ["start"] * 3
    assert call(run / "door_0")[0] == 7
    (run / "sessions/door_0/attempt_01/result.json").unlink()
    assert call(run / "door_0")[0] == 2
    assert call(run, "--set", "attempts=3")[0] == 2
    assert read_run(run).rows
