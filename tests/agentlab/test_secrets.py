"""A key that endpoints echo, through a whole run: it is in no file of the run, of its reports and exports, and on no screen."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from small_world import DoorEnv, door

from envs.base import TaskSuite
from envs.benchmark import Benchmark

sys.path.insert(0, str(Path(__file__).parents[1] / "policies"))

from endpoint_replies import RawEndpoint, completion, http

KEY, OTHER, PASSWORD = "sk-of+the/test-0123456789", "words&key<of>the=test", "hunt er2/!"
TIMEOUT = 3000
"""Seconds; a bound, not an expectation."""
VERBS = [
    ("report", "{run}", "--strips", "1"),
    ("report", "{run}", "--markdown"),
    ("compare", "{run}", "{run}", "--out", "{out}/compare"),
    ("view", "{run}", "--export", "{out}/view"),
    *(("export", "{run}", "--format", form, "--out", f"{{out}}/{form}") for form in ("atif", "sft", "pairs", "datasets", "osworld")),
    ("rescore", "{run}"),
    ("replay", "{run}", "--suite", "test_secrets:Doors"),
]  # fmt: skip
SPEAK = "import sys; sys.argv[0] = 'agentlab'; from agentlab.cli.app import main\n" + (
    "for words in {lines!r}:\n    sys.argv[1:] = words\n    try: main()\n    except SystemExit: pass\n"
)
"""Several command lines in one process, which imports what they need once."""


class DoorSuite(TaskSuite):
    name = "doors"

    def task_names(self):
        return ["door"]

    def instances(self, names, seed):
        return (door(number) for number in range(1, 100))


class Doors(Benchmark):
    """The small world as a benchmark."""

    name = "doors"
    environment = DoorEnv

    def suite(self, part=""):
        return DoorSuite()


def forms(secret):
    """How a secret may stand in a file."""
    basic = base64.b64encode(f"me:{secret}".encode()).decode()
    return {secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1], basic}


def echo(request):
    """Every request's head, in a reply, a refusal or an error in turn, with a word before the key."""
    echo.count += 1
    told = request.decode("latin-1")
    told += f"\nn{KEY} {KEY}s {quote(KEY, safe='')} http://me:{quote(PASSWORD, safe='')}@there {OTHER}\n"
    match echo.count % 5:
        case 1:
            return [http(told.encode(), 500)]
        case 2:
            return [http(json.dumps({"error": {"message": told}}).encode(), 429)]
        case _:
            return [http(json.dumps(completion(f"Thought: {told}\nAction: type(content='{KEY} {OTHER} {PASSWORD}')")).encode())]


def told(folder, trackers):
    """Run and walk all verbs; returns what was on the screen."""
    echo.count = 0
    with RawEndpoint(echo) as endpoint:
        address = endpoint.url.replace("://", f"://me:{quote(PASSWORD, safe='')}@")
        environment = os.environ | {
            "PYTHONPATH": str(Path(__file__).parent), "OPENAI_API_KEY": KEY, "KEY_OF_THE_WORDS": OTHER, "WANDB_MODE": "offline",
            "MLFLOW_TRACKING_URI": str(folder / "mlruns"), "MLFLOW_ALLOW_FILE_STORE": "true", "HOME": str(folder), "COLUMNS": "100",
        }  # fmt: skip
        settings = {
            "model.base_url": address, "model.family": "plain", "model.max_wait_s": 0.01,
            "words.method": "textgrad", "words.max_retries": 1,
            "words.engine": "openai:m", "words.base_url": address, "words.api_key_env": "KEY_OF_THE_WORDS", "words.backoff_s": 0,
        }  # fmt: skip
        sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        common = ["run", "test_secrets:Doors", "--policy", "openai:m", "--limit", "2", "--attempts", "2", "--workers", "1", *sets]
        lines = []
        for track in (None, *trackers):
            run = folder / f"run-{track}"
            lines.append([*common, "--out", str(run), *(["--track", track] if track else [])])
        lines += [[word.format(run=folder / "run-None", out=folder / "out") for word in verb] for verb in VERBS]
        shown = ""
        for some in (lines[: 1 + len(trackers)], lines[1 + len(trackers) :]):  # those that follow were not told the key
            known = environment if some[0][0] == "run" else {k: v for k, v in environment.items() if "KEY" not in k}
            done = subprocess.run(
                [sys.executable, "-c", SPEAK.format(lines=some)],
                env=known,
                capture_output=True,
                timeout=TIMEOUT,
                cwd=folder,
                check=False,
            )
            shown += (done.stdout + done.stderr).decode()
    return shown


def leaks(folder, shown):
    data = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    data[Path("the screen")] = shown.encode()
    wanted = {form.encode() for secret in (KEY, OTHER, PASSWORD) for form in forms(secret)}
    return sorted({f"{path}: {form.decode()}" for path, content in data.items() for form in wanted if form in content}), data


@pytest.mark.parametrize("trackers", [(), ("tensorboard", "wandb", "mlflow")], ids=["files", "trackers"])
def test_a_key_that_endpoints_echo_is_in_no_file_and_on_no_screen(tmp_path, trackers):
    for tracker in trackers:
        pytest.importorskip(tracker, reason=f"pip install {tracker}")
    shown = told(tmp_path, trackers)
    found, data = leaks(tmp_path, shown)
    assert not found, "\n".join(found)
    names = {path.name for path in data}
    assert {"events.jsonl", "words.json", "report.html", "index.html"} <= names and "Traceback" not in shown, shown
    events = b"".join(content for path, content in data.items() if path.name == "events.jsonl")
    assert b"authorization" in events.lower() and b"***" in events, "nothing was echoed"
