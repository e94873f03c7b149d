"""The paired benchmarks: everybody goes on from the same recorded failure, what is done is not done again, the numbers are right."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import adaptation
import options
import paired
import pool
import report
import rosa_cost
import sweep
import transfer

from agentlab.disk.row import Row, UpdateColumns, WordsColumns
from agentlab.disk.runs import read_rows
from envs.base import TaskSpec


def row(task: str, attempt: int, success: bool, **more) -> Row:
    about = {"task": task, "name": task.split("-")[0], "seed": 0, "attempt": attempt, "actions_hash": f"{task}{attempt}"}
    return Row(**about, outcome="graded", success=success, session_over=success, steps=2, **more)


def outcome(name: str, solved_at: list[int], names: list[str], attempts: int = 5) -> paired.Outcome:
    rows = [row(f"t{i}", t, t == s) for i, s in enumerate(solved_at) for t in range(1, (s or attempts) + 1)]
    made = np.array([s or attempts for s in solved_at])
    return paired.Outcome(options.Method(name, name), np.array(solved_at), made, names, rows)


def test_the_table_counts_pairs() -> None:
    names = [n for n in "abcdefghij" for _ in range(2)]
    low, high = outcome("low", [0] * 14 + [3] * 6, names), outcome("high", [2] * 10 + [0] * 4 + [3] * 6, names)
    first, second = paired.table([low, high], ["low"], 5)
    assert first["within"]["2"]["mean"] == 0 and second["within"]["2"]["mean"] == 0.5 and second["within"]["5"]["mean"] == 0.8
    versus = second["against"]["low"]["5"]
    assert (versus["won"], versus["lost"], versus["difference"]) == (10, 0, 0.5) and versus["p"] == pytest.approx(2**-9)
    assert 0.1 < versus["low"] < 0.5 < versus["high"] < 0.9
    assert first["attempts_per_solved"] == (14 * 5 + 6 * 3) / 6 and second["attempts_per_solved"] == (10 * 2 + 4 * 5 + 6 * 3) / 16
    saving = second["against"]["low"]["attempts_per_solved"]
    assert saving["change"] == pytest.approx((58 / 16) / (88 / 6) - 1) and saving["low"] < saving["change"] < saving["high"] < 0


def test_instances_of_one_task_count_as_one_cluster() -> None:
    solved = [2] * 10 + [0] * 10
    apart, together = (
        paired.table([outcome("m", solved, names)], [], 5)[0]["within"]["5"]
        for names in ([str(i) for i in range(20)], ["a"] * 10 + ["b"] * 10)
    )
    assert together["high"] - together["low"] > apart["high"] - apart["low"]


def test_the_sweep_takes_the_best_setting_of_each_method_and_keeps_a_tied_default() -> None:
    def line(preset: str, area: float, *sets: str) -> dict:
        return {"preset": preset, "area": area, "sets": list(sets)}

    repeat = "sampling.no_repeat=true"
    lines = [
        line("rosa", 0.5, "b=1"),
        line("rosa", 0.5),
        line("slot", 0.1),
        line("slot", 0.2, "lr=1"),
        line("rosa2", 0.5),
        line("rosa2", 0.9, "T=1", repeat),
    ]
    assert sweep.best(lines) == {"rosa": [], "slot": ["lr=1"], "rosa2": ["T=1", repeat]}


def test_lines_of_the_sweep_are_greedy_unless_they_say_otherwise(tmp_path: Path) -> None:
    setup = options.Setup("ui-tars-nano", 5, (1,), 10, 100, tmp_path, 2)
    lines = {m.name: setup.config(m.name, 1, m.preset, 5, m.sets).sampling for group in sweep.GROUPS.values() for m in group}
    assert (lines["rosa"].temperature, lines["rosa"].no_repeat) == (lines["hidden"].temperature, False) == (0, False)
    rosa = {m.name: setup.config(m.name, 1, m.preset, 5, m.sets).adapt.weights.beta for m in sweep.GROUPS["temperature"]}
    assert rosa["rosa-no-repeat-T0.7"] == 1.0 and rosa["rosa-no-repeat-beta-2.0"] == 2.0
    assert (lines["rosa2-T0.5"].temperature, lines["rosa2-T0.5"].no_repeat) == (0.5, False)
    assert (lines["rosa-no-repeat-T0.7"].temperature, lines["rosa-no-repeat-T0.7"].no_repeat) == (0.7, True)
    assert lines["no-repeat-T2.0"].no_repeat and not lines["best-of-k-T2.0"].no_repeat


def test_methods_that_are_like_another_take_its_settings_and_keep_their_own(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(
        '{"chosen": {"rosa": ["adapt.weights.beta=0.25", "sampling.temperature=0.5"], "best-of-k": ["temperature=2.0"]}}'
    )
    found = {m.name: m.sets for m in adaptation.tuned(adaptation.METHODS, path)}
    assert found["rosa"] == ("adapt.weights.beta=0.25", "sampling.temperature=0.5")
    assert found["rosa-greedy"] == (*found["rosa"], *options.CENTRE)
    assert found["rosa2"] == ("adapt.score_under=refined",)
    assert found["best-of-k"] == ("temperature=2.0",) and found["textgrad"] == found["rl"] == ()


def test_every_method_and_every_setting_of_the_sweep_resolves(tmp_path: Path) -> None:
    setup = options.Setup("ui-tars-nano", 5, (1,), 10, 100, tmp_path, 2)
    methods = [*adaptation.METHODS, *(m for group in sweep.GROUPS.values() for m in group)]
    assert len({m.name for m in methods}) >= len(methods) - 6  # defaults are in both
    for m in methods:
        config = setup.config(m.name, 1, m.preset, 5, m.sets)
        assert config.adapt.preset == m.preset and config.sampling.first_greedy


def test_theorem_counts() -> None:
    words = WordsColumns(distance=0.5, seconds=0.0, requests=0, tokens=0, cost=0.0, error="", characters=0)

    def updated(raw: float, refined: float, step: float, refined_step: float) -> Row:
        numbers = {"residual_before": 1.0, "residual_before_probability": raw, "delta_norm2": step}
        numbers["refined"] = {"residual": 1.0, "residual_probability": refined, "delta_norm2": refined_step}
        return row("t", 1, False, update=UpdateColumns(method="rosa", accepted=True, seconds=0.1, **numbers), words=words)

    failed = UpdateColumns(method="rosa", accepted=False, seconds=0.1, refined={"error": "x"})
    rows = [updated(1.0, 0.5, 2.0, 1.0), updated(1.0, 2.0, 2.0, 1.0), row("t", 2, False, update=failed)]
    terms = adaptation.error_terms(rows, 5)
    assert terms["theorem"] == {"n": 2, "residual_smaller": 1, "step_smaller": 2, "failed": 1}
    assert terms["by_attempt"]["1"]["n"] == 2 and terms["by_attempt"]["1"]["distance"] == 0.5


def test_after_the_deadline_only_groups_that_were_begun_are_finished(tmp_path: Path) -> None:
    config = options.Setup("ui-tars-nano", 5, (1,), 10, 100, tmp_path, 2).config("x", 1, "none", 5, ())
    jobs = [pool.Job(pool.ContinuedSession, config, TaskSpec("e", "t", i, 3), group=i // 2) for i in range(6)]
    waiting = pool._Queue(jobs, time.monotonic() + 3600)
    assert waiting.get() is jobs[0]
    waiting._deadline = time.monotonic() - 1
    assert [waiting.get(), waiting.get(), waiting.get()] == [jobs[1], None, None]


def test_transfer_goes_to_other_instances_of_the_same_task() -> None:
    tasks = [TaskSpec("e", name, seed, 3) for seed in range(3) for name in ("a", "b")]
    pair = paired.Pair(1, tasks[2], Path())
    assert [(t.name, t.seed) for t in transfer.targets(pair, tasks, 5)] == [("a", 2), ("a", 0)]


def test_the_whole_models_derivatives_are_those_of_the_head() -> None:
    assert rosa_cost.check_full() < 1e-4


def test_every_cost_is_measured_and_told() -> None:
    args = argparse.Namespace(device="cpu", hidden=128, vocab=500, layers=1, cg_measured=2, generate_measured=4)
    costs = [rosa_cost.generate(args, 16), *(rosa_cost.update(args, m, 16) for m in ("dual", "cg", "cg-full"))]
    assert [c.method for c in costs] == list(rosa_cost.METHODS) and all(c.seconds > 0 and c.cpu_s > 0 for c in costs)
    assert [c.scaled_by for c in costs] == [4.0, 1.0, 21 / 5, 21 / 5]
    shape = {"hidden": 128, "vocab": 500, "layers": 1, "device": "cpu", "threads": 1}
    page = report.rosa_cost({"shape": shape, "costs": [dataclasses.asdict(c) for c in costs]})
    assert "| 16 | `cg-full` |" in page


@pytest.mark.browser
def test_all_methods_go_on_from_the_same_failure_and_nothing_is_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = [
        options.Method("greedy", "none", attempts=2),
        options.Method("no-repeat", "no-repeat"),
        options.Method("rosa2", "rosa2", ("adapt.score_under=refined",)),
    ]
    setup = options.Setup("ui-tars-nano", 3, (9001,), 2, 40, tmp_path / "work", 4, tasks=("grid-coordinate", "visual-addition"))
    outcomes, facts = paired.compare(setup, methods)
    assert facts["population"] == 2 and [len(o.solved_at) for o in outcomes] == [2, 2, 2]
    first = {r.task: r.actions_hash for r in read_rows(tmp_path / "work/s9001-first") if not r.success}
    for o in outcomes:
        assert all(not r.success and first[r.task.removeprefix("9001/")] == r.actions_hash for r in o.rows if r.attempt == 1)
    greedy, no_repeat, rosa2 = paired.table(outcomes, ["greedy"], 3)
    assert greedy["exact_repeats"] == 1.0 and greedy["solved"] == 0  # a greedy retry is the same attempt again
    assert no_repeat["exact_repeats"] == 0.0
    assert rosa2["updates"]["made"] >= 2
    assert not list((tmp_path / "work").glob("s9001-rosa2/sessions/*/*/screens"))  # of finished sessions the rows stay

    again = read_rows(tmp_path / "work/s9001-rosa2")
    monkeypatch.setattr(pool.Pool, "_one", lambda *a: pytest.fail("made twice"))
    assert [list(o.solved_at) for o in paired.compare(setup, methods)[0]] == [list(o.solved_at) for o in outcomes]
    assert read_rows(tmp_path / "work/s9001-rosa2") == again

    monkeypatch.setattr(report, "DOCS", tmp_path)
    page = report.adaptation(adaptation.result(outcomes, facts, 3))
    assert "2 failing first attempts" in report.controls(adaptation.result(outcomes, facts, 3))
    assert "Theorem 4.1" in page and "| `rosa2` |" in page and (tmp_path / "img/adaptation.png").stat().st_size > 1000

    common = [
        "--seeds",
        "9001",
        "--pairs",
        "2",
        "--limit",
        "40",
        "--attempts",
        "2",
        "--work",
        str(tmp_path / "work"),
        "--workers",
        "4",
    ]
    common += ["--tasks", "grid-coordinate,visual-addition"]
    monkeypatch.undo()
    for module, more in ((transfer, ["--targets", "1", "--methods", "rosa"]), (sweep, ["--groups", "linearization"])):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *common, *more])
        module.main()
    moved = json.loads((tmp_path / "transfer.json").read_text())["methods"][0]
    assert moved["n"] == 2 and moved["of_failed"] + moved["of_solved"] == 2
    assert "one greedy attempt" in report.transfer(json.loads((tmp_path / "transfer.json").read_text()))
    assert set(json.loads((tmp_path / "tuned.json").read_text())["chosen"]) == {"rosa"}
    assert "`probability-all`" in report.sweep(json.loads((tmp_path / "sweep.json").read_text()))
