"""Result directories as OSWorld's own scripts leave them: what comes in, what is reported, and that nothing in them runs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agentlab.cli import app as cli
from agentlab.disk.runs import attempt_folders, find_session, read_attempt, read_run, read_screen
from agentlab.exchange.import_osworld import import_osworld
from agentlab.exchange.pyautogui_text import read_actions
from agentlab.replay.replay import Options as ReplayOptions
from agentlab.replay.replay import Replayer
from agentlab.replay.rescore import settings
from agentlab.replay.targets import find_target
from agentlab.results.compare import compare
from agentlab.results.report import make_report
from agentlab.view.library import Library
from envs import actions as act
from envs.errors import StoreError, UsageError

ONE, TWO, THREE, FOUR, FIVE = (f"{n}0000000-aaaa-4bbb-8ccc-dddddddddddd" for n in range(1, 6))
CLICK = "import pyautogui\nimport time\n\npyautogui.click(30.5, 20, button='left')"
REPLY = "Thought: The <b>menu</b>.\nAction: click(start_box='(300,400)')"


def picture(number: int) -> np.ndarray:
    screen = np.full((60, 80, 3), 255, np.uint8)
    screen[:, : 10 * number] = (0, 120, 0)
    return screen


def task(model: Path, name: str, actions, result: str | None, domain: str = "chrome") -> Path:
    """A task as upstream writes it: ``actions`` are (step_num, action, response)."""
    folder = model / domain / name
    folder.mkdir(parents=True)
    lines = []
    for count, (number, action, response) in enumerate(actions, start=1):
        stamp = f"20260101@12000{count}000000"
        file = f"step_{number}_{stamp}.png"
        Image.fromarray(picture(count)).save(folder / file)
        lines.append(
            {"step_num": number, "action_timestamp": stamp, "action": action, "response": response, "reward": 0,
             "done": action in {"DONE", "FAIL"}, "info": {}, "screenshot_file": file}
        )  # fmt: skip
    (folder / "traj.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if result is not None:
        (folder / "result.txt").write_text(result)
    return folder


@pytest.fixture
def results(tmp_path):
    """Five tasks of one model: solved, partly solved, given up, without a result, and ended by an error."""
    model = tmp_path / "results/pyautogui/screenshot/uitars"
    task(
        model,
        ONE,
        [(1, CLICK, REPLY), (2, "pyautogui.moveTo(5, 5)", "b"), (2, "pyautogui.dragTo(40, 50)", "b"), (3, "DONE", "c")],
        "1.0\n",
    )
    task(model, TWO, [(1, CLICK, REPLY)], "0.5", domain="gimp")
    task(model, THREE, [(1, "FAIL", {"raw": "no such thing"})], "False")
    task(model, FOUR, [(1, CLICK, REPLY)], None)
    (task(model, FIVE, [(1, CLICK, REPLY)], None) / "traj.jsonl").open("a").write('{"Error": "Time limit exceeded in chrome"}\n')
    (model / "args.json").write_text(json.dumps({"model": "ui-tars-7b", "max_steps": 50, "temperature": 0.0, "extra": [1]}))
    (model / "chrome/notes").mkdir()  # no task
    return tmp_path / "results"


def attempt(run: Path, name: str):
    (folder,) = attempt_folders(find_session(run, name))
    return read_attempt(folder)


def test_what_was_recorded_is_what_is_read(results, tmp_path):
    run = tmp_path / "run"
    done = import_osworld(results, run)
    assert (done.tasks, done.graded, done.solved) == (5, 3, 1)
    one = attempt(run, f"chrome+{ONE}_0")
    assert [step["actions"] for step in one.steps] == [
        [{"kind": "click", "x": 30.5, "y": 20.0}], [{"kind": "drag", "x": 5.0, "y": 5.0, "end_x": 40.0, "end_y": 50.0}],
        [{"kind": "finished", "text": ""}],
    ]  # fmt: skip
    assert (one.steps[0]["thought"], one.steps[0]["action_text"], one.end["ended_by"]) == ("The <b>menu</b>.", CLICK, "finished")
    assert one.steps[0]["screen"] == ""  # upstream saves screens after actions: the first one is not there
    shown = [read_screen(one.folder, name) for name in (one.steps[1]["screen"], one.steps[2]["screen"], one.end["screen"])]
    assert all(np.array_equal(screen, picture(n)) for screen, n in zip(shown, (1, 3, 4), strict=True))
    config = json.loads((run / "config.json").read_text())["config"]
    assert (config["suite"], config["policy"], config["imported"]["from"]) == ("osworld", "ui-tars-7b", "osworld")
    assert config["imported"]["args"] == {"model": "ui-tars-7b", "max_steps": 50, "temperature": 0.0}


def test_view_report_and_compare_read_it_and_say_that_it_is_imported(results, tmp_path):
    import_osworld(results, tmp_path / "runs/a")
    run = read_run(tmp_path / "runs/a")
    report = make_report(run)
    assert "imported from osworld" in report.title and not run.problems
    summary = dict(next(s for s in report.sections if s.title == "Summary").rows)
    # Four have ended (one by the machinery, which stays in the denominator), one of them solved; a part of the score is not a success.
    assert (summary["sessions"], summary["success@1"]) == ("4", "25.0%") and summary["machinery failures"].startswith("1 (")
    (failure,) = next(s for s in report.sections if s.title.startswith("Failures")).rows
    assert failure[0] == "osworld" and "Time limit" in failure[3]
    library = Library([tmp_path / "runs"])
    (line,) = library.index()["runs"]
    assert "imported from osworld" in line["title"] and (line["sessions"], line["ended"], line["solved"]) == (5, 4, 1)
    (shown,) = library.session(line["id"], f"gimp+{TWO}_0")["attempts"]
    assert (shown["score"], shown["reward"], shown["steps"][0]["screen"], shown["final"]["screen"]) == (0.5, -1, None, "000.webp")

    (results / f"pyautogui/screenshot/uitars/gimp/{TWO}/result.txt").write_text("1")
    import_osworld(results, tmp_path / "runs/b")
    (contrasts,) = compare([run, read_run(tmp_path / "runs/b")]).contrasts
    assert (contrasts[0].only_first, contrasts[0].only_other) == (0, 1)


def test_torn_missing_and_odd_things_are_reported_and_the_rest_comes_in(results, tmp_path):
    model = results / "pyautogui/screenshot/uitars"
    one = model / "chrome" / ONE
    with (one / "traj.jsonl").open("a") as file:
        file.write('{"step_num": 4, "acti')
    next(one.glob("step_2_*.png")).unlink()
    (next(one.glob("step_1_*.png"))).write_bytes(b"GIF89a no picture")
    (model / f"chrome/{THREE}/result.txt").write_text("nan")
    (model / f"gimp/{TWO}/traj.jsonl").unlink()
    (model / "chrome/not a task").mkdir()
    (model / "chrome/not a task/result.txt").write_text("1")
    done = import_osworld(results, tmp_path / "run")
    said = "\n".join(done.remarks)
    for part in (
        f"chrome/{ONE}: traj.jsonl, line 5 is incomplete", "step_2_", "not a screen",
        "'nan', which is not a score", f"gimp/{TWO}: no traj.jsonl",
        f"chrome/{FOUR}: no result", f"chrome/{FIVE}: no result, and an error", "not a task: not read",
    ):  # fmt: skip
        assert part in said, part
    assert (done.tasks, done.graded, done.solved) == (5, 2, 1)
    assert len(attempt(tmp_path / "run", f"chrome+{ONE}_0").steps) == 3


def test_a_results_directory_reads_nothing_outside_itself_and_runs_nothing(results, tmp_path):
    secret = tmp_path / "secret.png"
    Image.fromarray(picture(7)).save(secret)
    one = results / f"pyautogui/screenshot/uitars/chrome/{ONE}"
    lines = [json.loads(line) for line in (one / "traj.jsonl").read_text().splitlines()]
    lines[0]["screenshot_file"] = str(secret)
    lines[3]["screenshot_file"] = "../../../../../../secret.png"
    lines[2]["screenshot_file"] = "link.png"
    lines[3]["action"] = f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()"
    (one / "link.png").symlink_to(secret)
    (one / "traj.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (results / "pyautogui/screenshot/uitars/other").symlink_to(tmp_path)
    done = import_osworld(results, tmp_path / "run")
    assert sum("is not the name of a screen" in r for r in done.remarks) == 2 and any("leads out" in r for r in done.remarks)
    assert not (tmp_path / "ran").exists()
    assert not any(np.array_equal(np.asarray(Image.open(p).convert("RGB")), picture(7)) for p in (tmp_path / "run").rglob("*.webp"))
    assert attempt(tmp_path / "run", f"chrome+{ONE}_0").steps[2]["actions"] == []


def test_an_imported_run_is_not_made_again(results, tmp_path):
    import_osworld(results, tmp_path / "run")
    with pytest.raises(UsageError, match="imported from osworld"):
        Replayer(find_target(tmp_path / "run").run, ReplayOptions())
    with pytest.raises(UsageError, match="imported from osworld"):
        settings(read_run(tmp_path / "run"), "rosa", [])


def test_instructions_come_from_the_examples(results, tmp_path):
    examples = tmp_path / "evaluation_examples"
    (examples / "examples/chrome").mkdir(parents=True)
    (examples / f"examples/chrome/{ONE}.json").write_text(json.dumps({"id": ONE, "instruction": "Open the menu."}))
    done = import_osworld(results, tmp_path / "run", examples=examples)
    assert attempt(tmp_path / "run", f"chrome+{ONE}_0").begin["instruction"] == "Open the menu."
    assert sum("not among the examples" in r for r in done.remarks) == 4


def test_what_cannot_be_imported_is_refused(results, tmp_path):
    with pytest.raises(UsageError, match="no results"):
        import_osworld(results / "pyautogui/screenshot/uitars/chrome/notes", tmp_path / "run")
    task(results / "pyautogui/screenshot/another", ONE, [(1, "DONE", "")], "1")
    with pytest.raises(UsageError, match="2 settings") as refused:
        import_osworld(results, tmp_path / "run")
    assert "pyautogui/screenshot/another" in refused.value.hint
    assert import_osworld(results / "pyautogui/screenshot/another", tmp_path / "run").graded == 1
    with pytest.raises(StoreError, match="not empty"):
        import_osworld(results / "pyautogui/screenshot/another", tmp_path / "run")


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ("WAIT", [act.Wait()]),
        ("import pyautogui\npyautogui.doubleClick(1, 2)", [act.DoubleClick(1, 2)]),
        ("pyautogui.click(x=1, y=2, button='right')", [act.RightClick(1, 2)]),
        ("pyautogui.click(1, 2, clicks=2)", [act.DoubleClick(1, 2)]),
        ("pyautogui.moveTo(1, 2)\npyautogui.click()", [act.Click(1, 2)]),
        ("pyperclip.copy('a b')\npyautogui.hotkey('ctrl', 'v')\npyautogui.press('enter')", [act.Type("a b"), act.Hotkey(("enter",))]),
        ("pyautogui.hotkey(['ctrl', 'C'])", [act.Hotkey(("ctrl", "c"))]),
        ("pyautogui.scroll(-5, x=3, y=4)", [act.Scroll(3, 4, "down", clicks=5)]),
        ({"action_type": "CLICK", "parameters": {"x": 1, "y": 2, "num_clicks": 2}}, [act.DoubleClick(1, 2)]),
        ({"action_type": "TYPING", "text": "hi"}, [act.Type("hi")]),
        ({"action_type": "DONE"}, [act.Finished()]),
        ({"command": "pyautogui.typewrite('x')"}, [act.Type("x")]),
        ("pyautogui.click(open('/etc/passwd'), 1)", []),
        ("(" * 5000, []),
        ("os.system('true')", []),
        (None, []),
        ({"action_type": ["CLICK"]}, []),
    ],
)  # fmt: skip
def test_actions_of_others_are_read_as_ours(recorded, expected):
    assert read_actions([recorded]) == expected


def test_the_command_line_imports_and_says_what_was_odd(results, tmp_path, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["agentlab", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        return code, capsys.readouterr()

    code, shown = call("import", "osworld", results, "--out", tmp_path / "run")
    assert code == 0 and "5 tasks, 3 with a result, 1 solved" in shown.out and f"chrome/{FOUR}: no result" in shown.err
    assert call("import", "osworld", results, "--out", tmp_path / "run")[0] == 4
    assert call("replay", tmp_path / "run")[0] == 2
    code, shown = call("export", tmp_path / "run", "--format", "atif", "--out", tmp_path / "atif")
    assert code == 0 and "3 trajectories" in shown.out and "the machinery failed" in shown.err
    code, shown = call("export", tmp_path / "run", "--format", "csv", "--out", tmp_path / "csv")
    assert code == 2 and "Known: atif, sft, pairs, datasets" in shown.err


STRANGERS = """
from pathlib import Path
from agentlab.exchange.imported import Imported
from envs.benchmark import Benchmark

class Mine(Benchmark):
    name, environment = "mine_of_results", "nowhere:Env"
    def suite(self, part=""): ...
    def importer(self, results: Path, folder: Path, *, graded: int = 0) -> Imported:
        '''Results of mine.'''
        folder.mkdir()
        return Imported(tasks=3, graded=graded, remarks=[f"{results.name} is odd"])
"""


def test_a_benchmark_of_ones_own_brings_its_importer(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_i.py").write_text(STRANGERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    command = ["agentlab", "import", "mine_i:Mine", "results", "--out", "made", "--graded", "2"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr()
    assert ended.value.code == 0 and "3 tasks, 2 with a result, 0 solved: made" in shown.out and "results is odd" in shown.err
    assert (tmp_path / "made").is_dir()
