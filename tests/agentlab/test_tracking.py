"""Trackers: what they are told, through stand-ins with the real interface and through the real ones where they are installed."""

import sys
import threading
import types

import pytest
from made_runs import Made, make_run, task

from agentlab.cli import app as cli
from agentlab.disk.runs import read_run
from agentlab.results.metrics import summarize
from agentlab.run import tracking
from agentlab.run.resolve import resolve
from agentlab.run.tracking import Tally, open_backend
from envs.errors import SetupError

UPDATE = {"method": "rosa", "accepted": True, "kl_mean": 0.25, "bad": float("nan")}


def some_rows(tmp_path):
    sessions = [
        (task("a"), [Made(update=UPDATE), Made(True)]),
        (task("b"), [Made(True)]),
        (task("c"), [Made(), Made(), Made()]),
        (task("d"), [Made(broken="browser")]),
    ]
    return read_run(make_run(tmp_path / "made", sessions)).rows


class Run:
    """wandb's Run, as far as it is used."""

    def __init__(self, calls, fails_at):
        self.calls, self.fails_at = calls, fails_at

    def log(self, data, step=None, commit=None):
        if self.fails_at == len(self.calls):
            raise ConnectionError("the network is down")
        self.calls.append((step, dict(data)))

    def finish(self, exit_code=None, quiet=None):
        self.calls.append(("finish", exit_code))


@pytest.fixture
def wandb(monkeypatch):
    """A module that keeps what it is told in ``calls``; ``fails_at``: the call that raises; ``refuses``: init raises."""
    module = types.ModuleType("wandb")
    module.calls, module.fails_at, module.refuses = [], None, False

    def init(entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, config=None, **more):
        if module.refuses:
            raise RuntimeError("no API key configured")
        module.config = config
        return Run(module.calls, module.fails_at)

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def track(tmp_path, rows, name="wandb", resumed=0, planned=10):
    """Send rows through a tracker as a run does; returns its warnings."""
    said = []
    config = resolve({"attempts": 3, "out": tmp_path / "tracked", "track": name, "limit": 5})
    config.folder.mkdir(exist_ok=True)
    with tracking.tracking(config, planned, said.append) as tracker:
        tracker.start(rows[:resumed])
        for row in rows[resumed:]:
            tracker.row(row)
    return said


def test_the_totals_are_those_of_the_final_table(tmp_path):
    rows = some_rows(tmp_path)
    tally = Tally(3)
    last = [tally.add(row) for row in rows][-1]
    summary = summarize(rows, attempts=3)
    assert [last[f"run/success_at_{k}"] for k in (1, 2, 3)] == summary.success_at == [0.25, 0.5, 0.5]
    assert (last["run/sessions"], last["run/machinery_failures"]) == (summary.finished, summary.infrastructure_failures) == (4, 3)


def test_every_row_is_told_once_with_its_numbers(tmp_path, wandb):
    rows = some_rows(tmp_path)
    assert track(tmp_path, rows) == []
    assert [step for step, _ in wandb.calls] == [1, 2, 3, 4, 5, 6, 7, "finish"] and wandb.calls[-1] == ("finish", 0)
    first = wandb.calls[0][1]
    assert (first["update/kl_mean"], first["attempt/reward"], first["attempt/score"]) == (0.25, -1.0, 0.0)
    assert "update/bad" not in first and all(isinstance(v, float | int) for _, data in wandb.calls[:-1] for v in data.values())
    assert wandb.config["attempts"] == 3 and wandb.config["adapt"]["preset"] == "none"


def test_a_continued_run_counts_on_and_a_finished_one_tells_nothing(tmp_path, wandb):
    rows = some_rows(tmp_path)
    track(tmp_path, rows, resumed=5)
    assert [step for step, _ in wandb.calls] == [6, 7, "finish"]
    wandb.calls.clear()
    track(tmp_path, rows, resumed=7, planned=4)
    assert wandb.calls == []


def test_a_tracker_that_fails_is_reported_once_and_nothing_is_raised(tmp_path, wandb):
    wandb.fails_at = 2
    said = track(tmp_path, some_rows(tmp_path))
    assert len(said) == 1 and "the network is down" in said[0] and len(wandb.calls) == 2


def test_a_tracker_that_hangs_does_not_hold_the_run(tmp_path, wandb, monkeypatch):
    monkeypatch.setattr(tracking, "PATIENCE", 0.05)
    let_go = threading.Event()
    monkeypatch.setattr(Run, "log", lambda self, data, step=None: let_go.wait(60))
    said = track(tmp_path, some_rows(tmp_path))
    let_go.set()
    assert len(said) == 1 and "not finished within" in said[0]


def test_an_interrupted_run_is_marked(tmp_path, wandb):
    config = resolve({"out": tmp_path / "tracked", "track": "wandb"})
    with pytest.raises(KeyboardInterrupt), tracking.tracking(config, 5, print) as tracker:
        tracker.start([])
        raise KeyboardInterrupt
    assert wandb.calls == [("finish", 1)]


@pytest.mark.parametrize(("name", "module"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("tensorboard", "torch.utils.tensorboard")])
def test_a_tracker_that_is_not_installed_is_named_with_the_command(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    with pytest.raises(SetupError, match=f"{name} is not installed") as refused:
        open_backend(name)
    assert f"pip install {tracking.BACKENDS[name][2]}" in refused.value.hint


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [(["--track", "wandb"], 3, "no API key"), (["--track", "excel"], 2, "'wandb', 'mlflow' or 'tensorboard'")],
)
def test_a_run_with_a_tracker_that_cannot_start_ends_before_it_begins(tmp_path, wandb, monkeypatch, capsys, arguments, code, says):
    wandb.refuses = True
    monkeypatch.setattr(sys, "argv", ["agentlab", "run", "miniwob", "--policy", "noop", "--out", str(tmp_path / "r"), *arguments])
    monkeypatch.setattr("agentlab.run.parts.prepare", lambda config, say: None)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    shown = capsys.readouterr()
    assert stopped.value.code == code and says in shown.err.replace("\n", " ") and "Traceback" not in shown.err
    assert not list((tmp_path / "r").rglob("attempt_*"))


# -- the real ones, where they are installed ---------------------------------------------------------------------------------------
def test_tensorboard_really(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install tensorboard to check with the real one"
    )
    assert track(tmp_path, some_rows(tmp_path), "tensorboard") == []
    events = accumulator.EventAccumulator(str(tmp_path / "tracked/tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("run/success_at_3")][-1] == (7, 0.5)
    assert len(events.Scalars("attempt/reward")) == 6  # the one that the machinery ended has none


def test_wandb_really_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="pip install wandb to check with the real one")
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true"), ("WANDB_CACHE_DIR", str(tmp_path / "cache"))):
        monkeypatch.setenv(name, value)
    assert track(tmp_path, some_rows(tmp_path)) == []
    (file,) = (tmp_path / "tracked/wandb").glob("offline-run-*/run-*.wandb")
    assert b"run/success_at_3" in file.read_bytes()


def test_mlflow_really(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow-skinny to check with the real one")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert track(tmp_path, some_rows(tmp_path), "mlflow") == []
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("agentlab").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["attempts"] == "3"
    history = client.get_metric_history(run.info.run_id, "run/success_at_3")
    assert (history[-1].step, history[-1].value) == (7, 0.5)
