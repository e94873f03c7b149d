"""A benchmark, a policy and a method of somebody else's, in a folder outside the tree, through the verbs as a user types them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import in_process
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN = ["run", "own_benchmark:Guess", "--policy", "own_policy:Halving", "--seed", "0", "--out", "out"]


@pytest.fixture
def folder(tmp_path):
    for example in EXAMPLES.glob("own_*.py"):
        shutil.copy(example, tmp_path)
        assert len(example.read_text().splitlines()) <= 80
    return tmp_path


def agentlab(folder, *arguments, code=0):
    """Run the command line in ``folder``, of which Python knows nothing; what it printed."""
    command = [sys.executable, "-P", "-m", "agentlab", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, timeout=300)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stdout + done.stderr


def reader(folder, *arguments, code=0):
    """A verb that only reads a run, in ``folder`` and in this process."""
    with contextlib.chdir(folder):
        done = in_process.agentlab(*arguments, COLUMNS="200")
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stdout + done.stderr


def rows(folder):
    lines = (folder / "out" / "results.jsonl").read_text().splitlines()
    return [(row["task"], row["attempt"], row["score"]) for row in map(json.loads, lines)]


def guidance(folder):
    """Folder of an attempt -> what was written after it for the next one."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.glob("out/sessions/*/*/guidance.txt"))}


def test_words_of_the_house_on_a_strangers_benchmark_and_policy(folder):
    assert "small\nlarge\n" in agentlab(folder, "tasks", "own_benchmark:Guess")
    shown = agentlab(folder, *RUN, "--adapt", "textgrad", "--limit", "6", "--dry-run")
    assert "6 sessions" in shown and "large_2  (at most 3 steps)" in shown and not (folder / "out").exists()
    agentlab(folder, *RUN, "--adapt", "textgrad", "--limit", "6", "--attempts", "3")
    written = guidance(folder).values()
    assert written and all(text.startswith("Failed before:") and "guess(" in text for text in written)
    assert "own_benchmark:Guess" in reader(folder, "report", "out")
    reader(folder, "view", "out", "--export", "bundle")
    assert "guess(" in "".join(path.read_text(errors="replace") for path in (folder / "bundle").rglob("*") if path.is_file())


def test_a_method_of_ones_own_and_the_runs_directory_names_no_code(folder):
    agentlab(folder, *RUN, "--set", "adapt.words.method=own_method:interval", "--limit", "6", "--attempts", "4")
    made = rows(folder)
    assert {task for task, *_ in made} == {task for task, _, score in made if score == 1.0}, "the interval is halved on and on"
    (folder / "own_benchmark.py").write_text((EXAMPLES / "own_benchmark.py").read_text() + "\nprint('EXECUTED')\n")
    for verb in (["report", "out"], ["view", "out", "--export", "bundle"], ["compare", "out", "out"]):
        assert "EXECUTED" not in reader(folder, *verb)
    said = reader(folder, "replay", "out", code=2)
    assert "EXECUTED" not in said and "--suite own_benchmark:Guess" in said
    assert "EXECUTED" in agentlab(folder, "replay", "out", "--suite", "own_benchmark:Guess")
    assert "--policy own_policy:Halving" in reader(folder, "rescore", "out", code=2)


def test_a_killed_run_goes_on(folder):
    slow = (folder / "own_policy.py").read_text().replace("import re\n", "import re\nimport time\n")
    (folder / "own_policy.py").write_text(
        slow.replace("        self._step += 1\n", "        self._step += 1\n        time.sleep(0.05)\n")
    )
    arguments = [*RUN, "--adapt", "reflexion", "--limit", "8", "--attempts", "3", "--workers", "2"]
    running = subprocess.Popen([sys.executable, "-P", "-m", "agentlab", *arguments], cwd=folder, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(list(folder.glob("out/sessions/*/attempt_*/result.json"))) < 3:
        assert time.monotonic() < until and running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    agentlab(folder, *arguments)
    continued = rows(folder), guidance(folder)
    shutil.rmtree(folder / "out")
    agentlab(folder, *arguments)
    assert continued == (rows(folder), guidance(folder))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "model.frist=3"], "Did you mean 'first'"),
        (["--policy", "own_policy:HalvingSession"], "is the class HalvingSession, not a policy"),
        (["--policy", "own_policy:TRIED"], "is a Pattern, not a policy"),
        (["--policy", "own_policy:Halvin"], "Did you mean 'Halving'"),
        (
            ["--policy", "noop", "--adapt", "textgrad", "--set", "adapt.words.method=own_method:intervall"],
            "Did you mean 'interval'",
        ),
        (["--policy", "ui-tars-nano"], "own_benchmark:Guess gives text only"),
        (["--adapt", "rosa"], "has none to change"),
    ],
)
def test_mistakes_are_one_message(folder, arguments, says):
    assert says in agentlab(folder, *RUN, "--limit", "1", *arguments, code=2)
