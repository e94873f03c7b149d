"""Runs as data for others: what is written against the run's own files, and against the readers it is written for."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_runs import Made, make_run, screen, task
from PIL import Image

from agentlab.exchange.export import export_run
from envs import actions as act
from envs.errors import StoreError, UsageError

GUIDANCE = "Failed before:\n- The red square.\nDo otherwise. <script>alert(1)</script>"
TWO = (("First <b>this</b>.", act.Click(40.0, 60.0)), ("Then that.", act.Type("ab\n", True)))
SESSIONS = [
    (task("click-a"), [Made(steps=TWO, guidance_after=GUIDANCE), Made(steps=(TWO[0],)), Made(True, steps=TWO)]),
    (task("click-b", domain="other"), [Made(True)]),
    (task("click-c"), [Made(), Made(), Made()]),
    (task("click-d"), [Made(), Made(broken="browser")]),
]


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", SESSIONS)


def lines(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows(run: Path):
    return lines(run / "results.jsonl")


# -- ATIF --------------------------------------------------------------------------------------------------------------------------
# What the specification (Harbor's RFC 0001 at v1.8, as its published models check it) allows: (required, optional) fields.
ATIF = {
    "trajectory": (
        {"schema_version", "agent", "steps"},
        {"session_id", "trajectory_id", "notes", "final_metrics", "continued_trajectory_ref", "extra", "subagent_trajectories"},
    ),
    "agent": ({"name", "version"}, {"model_name", "tool_definitions", "extra"}),
    "step": (
        {"step_id", "source", "message"},
        {"timestamp", "model_name", "reasoning_effort", "reasoning_content", "tool_calls", "observation", "metrics",
         "is_copied_context", "llm_call_count", "extra"},
    ),
    "call": ({"tool_call_id", "function_name", "arguments"}, {"extra"}),
    "result": (set(), {"source_call_id", "content", "subagent_trajectory_ref", "extra"}),
    "metrics": (
        set(),
        {"prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd", "prompt_token_ids", "completion_token_ids", "logprobs",
         "extra"},
    ),
    "final": (
        set(),
        {"total_prompt_tokens", "total_completion_tokens", "total_cached_tokens", "total_cost_usd", "total_steps", "extra"},
    ),
}  # fmt: skip
AGENT_ONLY = {"model_name", "reasoning_effort", "reasoning_content", "tool_calls", "metrics"}


def fields(kind: str, data: dict):
    required, optional = ATIF[kind]
    assert required <= data.keys() <= required | optional, (kind, data.keys())


def content(parts, folder: Path):
    for part in parts:
        if part["type"] == "image":
            assert set(part) == {"type", "source"} and set(part["source"]) == {"media_type", "path"}
            path = folder / part["source"]["path"]
            assert part["source"]["media_type"] == "image/webp" and not Path(part["source"]["path"]).is_absolute()
            assert Image.open(path).format == "WEBP"
        else:
            assert set(part) == {"type", "text"} and isinstance(part["text"], str)


def check_atif(path: Path) -> dict:
    """The rules of the format, one by one."""
    data = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    fields("trajectory", data)
    assert data["schema_version"] == "ATIF-v1.8" and data["steps"]
    fields("agent", data["agent"])
    fields("final", data["final_metrics"])
    assert data["final_metrics"]["total_steps"] == len(data["steps"])  # else the notes would have to say why
    for number, step in enumerate(data["steps"], start=1):
        fields("step", step)
        assert step["step_id"] == number and step["source"] in {"system", "user", "agent"}
        assert step["source"] == "agent" or not AGENT_ONLY & step.keys()
        if isinstance(step["message"], list):
            content(step["message"], path.parent)
        calls = [call["tool_call_id"] for call in step.get("tool_calls", [])]
        assert len(set(calls)) == len(calls)
        for call in step.get("tool_calls", []):
            fields("call", call)
            assert isinstance(call["arguments"], dict)
        fields("metrics", step.get("metrics", {}))
        for result in step.get("observation", {}).get("results", []):
            fields("result", result)
            assert result.get("source_call_id", (calls or [None])[-1]) in (calls or [None])
            content(result["content"], path.parent)
    return data


def test_atif_trajectories_keep_the_rules_of_the_format_and_say_what_happened(run, tmp_path):
    done = export_run(run, "atif", tmp_path / "out")
    paths = sorted((tmp_path / "out").rglob("trajectory.json"))
    graded = [r for r in rows(run) if r["outcome"] == "graded"]
    assert done.count == len(paths) == len(graded) == 8
    assert [line.split(":")[0] for line in done.left_out] == ["click-d_1/2"]  # the machinery failed
    found = {path.parent.relative_to(tmp_path / "out").as_posix(): check_atif(path) for path in paths}
    first, second = found["click-a_1/attempt_01"], found["click-a_1/attempt_02"]
    assert first["session_id"] == second["session_id"] == "run/click-a_1" and first["trajectory_id"] != second["trajectory_id"]
    assert [part["text"] for part in second["steps"][0]["message"] if part["type"] == "text"] == [
        f"Click the red square of click-a.\n\n{GUIDANCE}"
    ]
    click, typed = (step["tool_calls"][0] for step in first["steps"][1:])
    assert (click["function_name"], click["arguments"]) == ("click", {"x": 40.0, "y": 60.0})
    assert (typed["function_name"], typed["arguments"]) == ("type", {"text": "ab\n", "submit": True})
    assert first["steps"][1]["reasoning_content"] == "First <b>this</b>."
    assert first["final_metrics"]["extra"] == {"score": 0.0, "reward": -1, "success": False, "ended_by": "environment", "steps": 2}
    last = tmp_path / "out/click-a_1/attempt_01" / first["steps"][2]["observation"]["results"][0]["content"][0]["source"]["path"]
    assert np.array_equal(np.asarray(Image.open(last)), screen(2))  # the screen that the second reply led to
    tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in first["agent"]["tool_definitions"]}
    assert tools.keys() == act.VOCABULARY.keys() - {"invalid"}
    assert tools["drag"]["required"] == ["x", "y", "end_x", "end_y"] and tools["scroll"]["properties"]["direction"]["enum"]


def test_atif_trajectories_pass_harbors_own_validator(run, tmp_path):
    validator = pytest.importorskip(
        "harbor.utils.trajectory_validator", reason="pip install harbor (Python 3.12 or later) checks this with the official models"
    )
    export_run(run, "atif", tmp_path / "out")
    for path in (tmp_path / "out").rglob("trajectory.json"):
        check = validator.TrajectoryValidator()
        assert check.validate(path), check.get_errors()


# -- training ----------------------------------------------------------------------------------------------------------------------
def said(messages, folder: Path, run: Path, place: str):
    """A conversation: roles in turn, its screens those of the attempt, byte for byte; returns the replies."""
    assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2)
    for message in messages:
        for part in message["content"]:
            if part["type"] == "image":
                assert not Path(part["image"]).is_absolute()
                original = run / "sessions" / place / "screens" / Path(part["image"]).name
                assert (folder / part["image"]).read_bytes() == original.read_bytes()
    return [m["content"][0]["text"] for m in messages if m["role"] == "assistant"]


def test_sft_has_the_solved_attempts_and_no_others(run, tmp_path):
    done = export_run(run, "sft", tmp_path / "out")
    found = lines(tmp_path / "out/sft.jsonl")
    assert [(x["task"], x["attempt"]) for x in found] == [(r["task"], r["attempt"]) for r in rows(run) if r["success"]]
    assert done.count == 2 and done.images == 2 + 1  # the screens before each reply, not the last ones
    replies = said(found[0]["messages"], tmp_path / "out", run, "click-a_1/attempt_03")
    assert [reply.startswith(f"Thought: {thought}") for reply, (thought, _) in zip(replies, TWO, strict=True)] == [True, True]
    assert found[0]["images"] == [f"images/click-a_1/attempt_03/{n:03d}.webp" for n in range(2)]


def test_pairs_are_every_failed_attempt_beside_the_solved_one(run, tmp_path):
    export_run(run, "pairs", tmp_path / "out", guidance=False)
    found = lines(tmp_path / "out/pairs.jsonl")
    made = rows(run)
    solved = {r["task"]: r["attempt"] for r in made if r["success"]}
    expected = [(r["task"], solved[r["task"]], r["attempt"]) for r in made if r["task"] in solved and not r["success"]]
    assert [(x["task"], x["chosen_attempt"], x["rejected_attempt"]) for x in found] == expected == [
        ("click-a_1", 3, 1), ("click-a_1", 3, 2),
    ]  # fmt: skip
    one, two = found
    assert (one["same_replies"], two["same_replies"]) == (2, 1)
    for pair, failed, rejected in ((one, "01", ["First <b>this</b>.", "Then that."]), (two, "02", ["First <b>this</b>."])):
        assert pair["prompt"][0]["content"][0]["text"] == "Click the red square of click-a."  # --no-guidance
        for side, attempt, thoughts in (("chosen", "03", ["First <b>this</b>.", "Then that."]), ("rejected", failed, rejected)):
            replies = said(pair["prompt"] + pair[side], tmp_path / "out", run, f"click-a_1/attempt_{attempt}")
            assert [reply.split("\n")[0].removeprefix("Thought: ") for reply in replies] == thoughts
            assert all(f"attempt_{attempt}/" in image for image in pair[f"{side}_images"])
    assert two["rejected_guidance"] == GUIDANCE


def test_datasets_loads_the_folder(run, tmp_path):
    datasets = pytest.importorskip("datasets", reason="comes with textgrad")
    done = export_run(run, "datasets", tmp_path / "out")
    table = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    made = [r for r in rows(run) if r["outcome"] == "graded"]
    assert len(table) == done.count == sum(r["steps"] for r in made)
    assert isinstance(table.features["screen"], datasets.Image) and isinstance(table.features["next_screen"], datasets.Image)
    one = next(r for r in table if (r["task"], r["attempt"], r["step"]) == ("click-a_1", 3, 2))
    assert np.array_equal(np.asarray(one["screen"].convert("RGB")), screen(1))
    assert np.array_equal(np.asarray(one["next_screen"].convert("RGB")), screen(2))
    assert json.loads(one["actions"]) == [{"kind": "type", "text": "ab\n", "submit": True}] and one["solved"]
    assert {(r["task"], r["attempt"]) for r in table if r["solved"]} == {(r["task"], r["attempt"]) for r in made if r["success"]}


# -- damaged and hostile runs ------------------------------------------------------------------------------------------------------
def test_the_card_of_a_strangers_run_shows_its_title_as_text(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    config["config"]["policy"] = "<img src=x onerror=alert(1)> [here](javascript:alert(1))"
    (run / "config.json").write_text(json.dumps(config))
    export_run(run, "datasets", tmp_path / "out")
    title = next(line for line in (tmp_path / "out/README.md").read_text().splitlines() if line.startswith("# "))
    assert "&lt;img src=x" in title and "<" not in title and "](" not in title.replace("\\](", "")


@pytest.mark.parametrize("form", ["atif", "sft", "pairs", "datasets"])
def test_nothing_outside_an_attempt_is_copied_and_the_rest_is_exported(run, tmp_path, form):
    secret = tmp_path / "secret.webp"
    Image.fromarray(screen(4)).save(secret)
    attempts = [run / f"sessions/click-a_1/attempt_{n:02d}" for n in (1, 2, 3)]
    link = attempts[0] / "screens/000.webp"
    link.unlink()
    link.symlink_to(secret)
    events = attempts[1] / "events.jsonl"
    events.write_text(events.read_text().replace("screens/000.webp", "../../../../../secret.webp"))
    Image.fromarray(screen(3)).save(run / "sessions/click-b_1/attempt_01/screens/000.webp", format="PNG")
    done = export_run(run, form, tmp_path / "out") if form != "pairs" else None
    if done is None:
        with pytest.raises(UsageError, match="no pairs to export") as refused:
            export_run(run, form, tmp_path / "out")
        assert "click-a_1/1" in refused.value.hint and "click-a_1/2" in refused.value.hint
    else:
        named = {line.split(":")[0] for line in done.left_out}
        assert "click-b_1/1" in named and (form == "sft" or {"click-a_1/1", "click-a_1/2"} <= named)
        assert done.count >= 1
    copied = [p for p in (tmp_path / "out").rglob("*") if p.is_file() and p.suffix not in {".json", ".jsonl", ".md"}]
    assert all(p.suffix == ".webp" and not p.is_symlink() for p in copied)
    assert secret.read_bytes() not in {p.read_bytes() for p in copied} and all(p.read_bytes()[8:12] == b"WEBP" for p in copied)


def test_torn_foreign_and_unfinished_attempts_are_named(run, tmp_path):
    with (run / "sessions/click-a_1/attempt_01/events.jsonl").open("a") as file:
        file.write('{"torn')
    (run / "sessions/click-a_1/attempt_02/result.json").unlink()
    other = run / "sessions/click-b_1/attempt_01/result.json"
    other.write_text(json.dumps(json.loads(other.read_text()) | {"schema": 99}))
    done = export_run(run, "atif", tmp_path / "out")
    named = dict(line.split(": ", 1) for line in done.left_out)
    assert "incomplete" in named["click-a_1/1"] and "not ended" in named["click-a_1/2"] and "schema" in named["click-b_1/1"]
    assert (tmp_path / "out/click-a_1/attempt_03/trajectory.json").exists() and not (tmp_path / "out/click-b_1").exists()


def test_what_cannot_be_asked_for(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        export_run(run, "sft", tmp_path / "full")
    with pytest.raises(UsageError, match="no export format"):
        export_run(run, "csv", tmp_path / "out")
    with pytest.raises(StoreError, match="not a run directory"):
        export_run(tmp_path / "full", "sft", tmp_path / "out")
