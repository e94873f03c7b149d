"""Replays of OSWorld runs: over the stand-in of the guest, and on a real light desktop."""

import io
import itertools
import json
import shutil

import pytest
from PIL import Image, ImageDraw
from standin import SIZE, standin

from agentlab.replay.replay import Options, Replayer, replay_all
from agentlab.replay.targets import find_target
from agentlab.run.parts import prepare
from agentlab.run.resolve import resolve
from agentlab.run.runner import Runner
from envs import actions as act
from envs import containers
from envs.errors import SetupError, UsageError
from envs.osworld import machinery
from envs.osworld.upstream import grader_python


# -- a stand-in ------------------------------------------------------------------------------------------------------------------
class Desktop:
    """What the stand-in shows: a mark where it was clicked, letters as bars, a clock on top; and what makes a task solved."""

    def __init__(self, guest) -> None:
        self.guest, self.ticks, self.begun = guest, itertools.count(), 0
        guest.draw = self.draw

    def done(self) -> list[dict]:
        return self.guest.operations[self.begun :]

    def draw(self) -> bytes:
        picture = Image.new("RGB", SIZE, "teal")
        pen = ImageDraw.Draw(picture)
        x = y = 0
        for operation in self.done():
            x, y = operation.get("x", x), operation.get("y", y)
            pen.rectangle((x - 4, y - 4, x + 4, y + 4), fill="white")
        pen.text((SIZE[0] // 2 - 20, 8), f"15:{next(self.ticks) % 60:02d}", fill="yellow")
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()


class SeeingGrader:
    """A task is solved by a click at (200, 100) and saying so."""

    desktop: Desktop

    def __init__(self, processes: int = 1, **_: object) -> None:
        pass

    def prepare(self, task, guest) -> None:
        self.desktop.begun = len(self.desktop.guest.operations)

    def score(self, task, guest, last) -> float:
        hit = any((o.get("x"), o.get("y")) == (200, 100) for o in self.desktop.done())
        return float(hit and isinstance(last, act.Finished))

    def forget(self, guest) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of the scripted policy over a task of the user's, on the stand-in: one attempt that solves it."""
    steps = [
        [{"kind": "click", "x": 60, "y": 150}], [{"kind": "click", "x": 200, "y": 100}, {"kind": "type", "text": "ab"}],
        [{"kind": "finished"}],
    ]  # fmt: skip
    evaluator = {"func": "exact_match", "result": {"type": "vm_command_line", "command": "x"}}
    job = {"id": "two-clicks", "instruction": "Click twice.", "config": [], "evaluator": evaluator, "oracle": steps}
    (tmp_path / "tasks/os").mkdir(parents=True)
    (tmp_path / "tasks/os/two-clicks.json").write_text(json.dumps(job))
    monkeypatch.setattr(machinery, "OfficialGrader", SeeingGrader)
    monkeypatch.setattr("agentlab.replay.replay.lacking", lambda suite, options: [])
    with standin() as guest:
        SeeingGrader.desktop = Desktop(guest)
        env = {"provider": f"address:{guest.address}", "screen": list(SIZE), "timing": "brisk"}
        flags = {"suite": f"osworld:{tmp_path / 'tasks'}", "policy": "scripted", "attempts": 1, "out": tmp_path / "run", "env": env}
        (row,) = Runner(resolve(flags)).run()
        assert row.score == 1 and row.steps == 3
        yield tmp_path / "run"


def again(run, guest=None, env=None, **options):
    done, notes = replay_all(
        find_target(run), Options(patience=0.5, **options), {"provider": f"address:{SeeingGrader.desktop.guest.address}"} | (env or {}),
        print, suite=str(run.parent / "tasks"),
    )  # fmt: skip
    (one,) = done
    return one, notes


def events_of(run):
    (path,) = run.glob("sessions/*/attempt_01/events.jsonl")
    return path


def tamper(run, change):
    path = events_of(run)
    events = [json.loads(line) for line in path.read_text().splitlines()]
    change([event for event in events if event["event"] == "step"])
    path.write_text("".join(json.dumps(event) + "\n" for event in events))


def test_a_run_is_reproduced_its_screen_and_timing_taken_over_and_its_clock_not_compared(run):
    one, notes = again(run)
    assert one.reproduced and (one.compared, one.score) == (4, 1.0)
    assert any("40,0,240,32" in note for note in notes)  # what is not compared is said
    whole, _ = again(run, whole=True)
    assert whole.divergence is not None and whole.divergence.after == 0 and whole.score == 1.0


def test_a_tampered_action_is_told_at_its_step_and_graded_anew(run):
    tamper(run, lambda steps: steps[1]["actions"][0].update(x=90))
    one, _ = again(run)
    assert (one.divergence.after, one.recorded, one.score, one.reproduced) == (2, 1.0, 0.0, False)
    stopped, _ = again(run, stop=True)
    assert stopped.divergence.after == 2 and stopped.score is None


def test_a_tampered_ending_and_a_refused_action_are_told(run):
    tamper(run, lambda steps: steps[2].update(actions=[{"kind": "wait"}]))
    one, _ = again(run)
    assert one.divergence.after == 3 and "did not end" in one.divergence.what and one.score is None
    tamper(run, lambda steps: steps[0].update(actions=[{"kind": "open_app", "name": "calculator"}]))
    one, _ = again(run)
    assert one.divergence.after == 1 and "refused" in one.divergence.what


def test_the_recorded_address_is_not_called_and_said_to_be_left_out(run, monkeypatch):
    asked, begun = [], len(SeeingGrader.desktop.guest.asked)

    def none(name, *_, **__):
        asked.append(name)
        raise SetupError("There is no Docker here.", "Start it.")

    monkeypatch.setattr(machinery, "make_provider", none)
    replayer = Replayer(find_target(run).run, Options(), suite=str(run.parent / "tasks"))
    assert replayer.ignored == ["provider"]
    (target,) = find_target(run).attempts()
    with pytest.raises(SetupError):
        replayer.replay(*target)
    replayer.close()
    assert asked == ["light"] and len(SeeingGrader.desktop.guest.asked) == begun


def test_a_guest_that_dies_is_the_machinerys_failure_and_a_new_try_succeeds(run):
    SeeingGrader.desktop.guest.fail["/agentlab/input"] = ["", 500]  # the first request only asks what the guest takes
    one, _ = again(run)
    assert one.reproduced and SeeingGrader.desktop.guest.fail["/agentlab/input"] == []
    SeeingGrader.desktop.guest.fail["/agentlab/input"] = ["", 500] * 2
    one, _ = again(run, retries=1)
    assert one.machinery and one.divergence is None and one.score is None


def test_another_screen_and_no_guest_are_said(run):
    one, _ = again(run, env={"screen": [640, 480]})
    assert "screen is 320x180" in one.failure and not one.machinery
    with pytest.raises(UsageError, match="tasks of this run are files"):
        replay_all(find_target(run), Options(), {}, print)
    shutil.rmtree(run.parent / "tasks")
    with pytest.raises(UsageError, match="no such file"):
        again(run)


# -- a real desktop --------------------------------------------------------------------------------------------------------------
@pytest.mark.docker
def test_a_run_on_a_light_desktop_is_reproduced_and_a_tampered_action_told(engine, ledger, tmp_path):
    try:
        grader_python()
    except SetupError as error:
        pytest.skip(str(error))
    flags = {"suite": "osworld-light", "policy": "scripted", "attempts": 1, "tasks": ["text_editor/editor-new-lines"]}
    config = resolve(flags | {"out": tmp_path / "run", "env": {"provider": "light"}})
    prepare(config, print)
    (row,) = Runner(config).run()
    assert row.score == 1.0 and row.steps >= 3
    (one,), notes = replay_all(find_target(tmp_path / "run"), Options(), {}, print)
    assert (one.divergence, one.failure, one.score) == (None, "", 1.0) and one.compared == row.steps + 1 and notes == []

    place = next(n for n, step in enumerate(_steps(tmp_path / "run")) if step["actions"][0]["kind"] == "type")
    tamper(tmp_path / "run", lambda steps: steps[place]["actions"][0].update(text="something else"))
    (other,), _ = replay_all(find_target(tmp_path / "run"), Options(), {}, print)
    assert other.divergence.after == place + 1 and other.score == 0.0
    assert [row.name for row in containers.ls(ledger) if row.ours] == [], "no container is left"


def _steps(run):
    return [event for line in events_of(run).read_text().splitlines() if (event := json.loads(line))["event"] == "step"]
