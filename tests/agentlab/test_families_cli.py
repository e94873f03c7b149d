"""The verbs about families, recipes as settings of a run, and runs in upstream's result layouts."""

import dataclasses
import gzip
import json
import pickle
import subprocess
import sys
import textwrap

import pytest
from made_runs import Made, make_run, task
from typer.testing import CliRunner

from agentlab.cli.app import app
from agentlab.exchange.upstream import SCROLL_CLICKS, as_pyautogui
from agentlab.run.recipes import recipe_named, settings_of_recipe
from agentlab.run.resolve import resolve
from envs import actions as act
from envs.errors import UsageError
from policies.families.code_calls import read_code
from policies.families.registry import families, recipes
from policies.families.reply import Frame


def parsed(text, *arguments):
    done = CliRunner().invoke(app, ["parse", *arguments], input=text)
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Holo1.5-7B", "is not supported"),
        ("Qwen2.5-VL-7B-Instruct", "No family of models"),
        ("Fara-7B", None),
        ("GUI-Owl-7B", None),
    ],
)
def test_a_folder_whose_family_is_not_known_is_refused_before_anything_starts(name, said, tmp_path):
    (folder := tmp_path / name).mkdir()
    for file in ("config.json", "tokenizer_config.json", "processor_config.json", "model.safetensors"):
        (folder / file).write_text('{"model_type": "qwen2_5_vl"}')
    done = CliRunner().invoke(app, ["run", "miniwob", "--policy", str(folder), "--dry-run", "--out", str(tmp_path / "run")])
    assert (done.exit_code != 0) == bool(said) and (said or "Run directory") in f"{done.stdout} {done.exception}"


def test_parse_prints_actions_in_pixels_of_the_screen():
    reply = "Thought: go\nAction: click(start_box='(966,546)')\n\ntype(content='ü\\n')"
    code, written, _ = parsed(reply, "ui-tars-1.5-7b", "--size", "1920x1080")
    assert code == 0 and [json.loads(line) for line in written.splitlines()] == [
        {"kind": "click", "x": 960.0, "y": 540.0},
        {"kind": "type", "text": "ü", "submit": True},
    ]
    in_thousandths = parsed(reply, "ui-tars-1.5", "--size", "1920x1080", "--set", "coordinates=relative-1000")[1]
    assert json.loads(in_thousandths.splitlines()[0])["x"] > 1800
    assert "press_home" in parsed("Action: hotkey(key='home')", "ui-tars-1", "--platform", "mobile")[1]


def test_parse_says_why_a_reply_is_no_action():
    code, written, said = parsed("I do not know.", "fara")
    assert (code, written) == (1, "") and "not an action: No tool call" in said


@pytest.mark.parametrize(
    "arguments", [["nobody"], ["fara", "--size", "big"], ["fara", "--platform", "fridge"], ["fara", "--set", "x"]]
)
def test_parse_explains_mistakes(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "agentlab", "parse", *arguments], input="", capture_output=True, text=True, timeout=300
    )
    assert done.returncode == UsageError.exit_code and "Traceback" not in done.stderr and done.stderr.strip()


def test_lists_name_everything():
    runner = CliRunner()
    listed = runner.invoke(app, ["families"], env={"COLUMNS": "300"}).stdout
    assert all(name in listed for name in families())
    listed = runner.invoke(app, ["recipes"], env={"COLUMNS": "300"}).stdout
    assert all(name in listed for name in recipes())
    assert "max_steps = 50" in runner.invoke(app, ["recipes", "evocua-8b@osworld-verified"]).stdout


def test_a_recipe_is_the_lowest_layer_of_a_runs_settings():
    recipe = settings_of_recipe(recipe_named("ui-tars-1.5-7b@osworld"))
    config = resolve({"suite": "osworld"}, recipe=recipe)
    assert (config.policy, config.attempts, config.max_steps) == ("ui-tars-1.5-7b", 1, 100)
    assert (config.sampling.temperature, config.sampling.top_p, config.sampling.frequency_penalty) == (1.0, 0.9, 1.0)
    config = resolve({"suite": "osworld", "attempts": 3}, sets=["max_steps=15"], recipe=recipe)
    assert (config.attempts, config.max_steps) == (3, 15)
    for one in recipes().values():
        assert resolve({"suite": one.benchmark}, recipe=settings_of_recipe(one)).policy == one.policy
    with pytest.raises(UsageError, match="no recipe"):
        recipe_named("evocua-8b@osworld")


# -- upstream's layouts ------------------------------------------------------------------------------------------------------------

SHOW_RESULT = textwrap.dedent(
    """
    import os, sys
    # As upstream's show_result.py walks its results.
    found = {}
    target = os.path.join(sys.argv[1], "pyautogui", "screenshot", sys.argv[2])
    for domain in sorted(os.listdir(target)):
        path = os.path.join(target, domain)
        if os.path.isdir(path):
            for example in sorted(os.listdir(path)):
                if "result.txt" in os.listdir(os.path.join(path, example)):
                    found[f"{domain}/{example}"] = float(open(os.path.join(path, example, "result.txt")).read())
    print(found)
    """
)


@pytest.fixture
def run_dir(tmp_path):
    solved, failed = Made(success=True), Made()
    letter = task("write a letter", domain="os")
    sessions = [(letter, [failed, solved]), (task("b"), [solved]), (task("c"), [Made(broken="browser")])]
    return make_run(tmp_path / "run", sessions, policy="ui-tars-1.5-7b")


@pytest.mark.parametrize(
    "action",
    [
        act.Click(3, 4), act.DoubleClick(3, 4), act.TripleClick(3, 4), act.RightClick(3, 4), act.MiddleClick(3, 4), act.Hover(3, 4),
        act.MouseDown(3, 4), act.MouseUp(3, 4), act.Type("it's \\n"), act.Type("a", True), act.Hotkey(("ctrl", "c")),
        act.Scroll(3, 4, "down"), act.Scroll(3, 4, "left", clicks=2), act.KeyDown(("shift",)), act.KeyUp(("shift",)),
    ],
    ids=lambda a: a.kind,
)  # fmt: skip
def test_actions_as_osworld_writes_them_mean_the_same(action):
    found = read_code(as_pyautogui(action), Frame(1920, 1080, 1920, 1080))
    if isinstance(action, act.Type) and action.submit:
        assert found == [act.Type("a"), act.Hotkey(("enter",))]
    elif isinstance(action, act.Scroll):
        assert found == [dataclasses.replace(action, clicks=action.clicks or SCROLL_CLICKS)]
    else:
        assert found == [action]


def exported(run_dir, form, tmp_path):
    done = CliRunner().invoke(app, ["export", str(run_dir), "--format", form, "--out", str(tmp_path / form)])
    assert done.exit_code == 0, done.output
    return tmp_path / form


def test_osworlds_layout_counts_first_attempts(run_dir, tmp_path):
    folder = exported(run_dir, "osworld", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", SHOW_RESULT, str(folder), "ui-tars-1.5-7b"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "{'miniwob/b': 1.0, 'os/write-a-letter': 0.0}"
    example = folder / "pyautogui" / "screenshot" / "ui-tars-1.5-7b" / "miniwob" / "b"
    (line,) = map(json.loads, (example / "traj.jsonl").read_text().splitlines())
    assert (line["step_num"], line["action"], line["done"], line["reward"]) == (1, "pyautogui.click(40, 60)", True, 1.0)
    assert (example / line["screenshot_file"]).read_bytes().startswith(b"\x89PNG")
    back = CliRunner().invoke(
        app, ["import", "osworld", str(folder / "pyautogui" / "screenshot" / "ui-tars-1.5-7b"), "--out", str(tmp_path / "back")]
    )
    assert "2 tasks, 2 with a result, 1 solved" in " ".join(back.output.split())


def test_androidworlds_checkpoints_hold_plain_values(run_dir, tmp_path):
    folder = exported(run_dir, "androidworld", tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["b_0.pkl.gz", "write-a-letter_0.pkl.gz"]
    (episode,) = pickle.loads(gzip.decompress((folder / "b_0.pkl.gz").read_bytes()))  # noqa: S301 — ours, just written
    assert (episode["task_template"], episode["instance_id"], episode["is_successful"], episode["episode_length"]) == (
        "b",
        0,
        1.0,
        1,
    )
    assert episode["exception_info"] is None and episode["agent_name"] == "ui-tars-1.5-7b" and episode["seed"] == 1
