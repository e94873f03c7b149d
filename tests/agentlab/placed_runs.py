"""What tests of a cluster compare of runs; importing it makes the benchmarks of tests/own importable."""

import json
import sys
from pathlib import Path

from typer.testing import CliRunner

from agentlab.cli.app import app
from envs.errors import LabError

OWN = str(Path(__file__).parents[1] / "own")
NOT_COMPARED = {"seconds", "hidden_seconds", "memory", "infrastructure"}

sys.path.insert(0, OWN)


def lived(rows):
    """Everything in a row but how long it took and what the machinery did."""
    taken = {**dict.fromkeys(NOT_COMPARED, True), "words": {"seconds"}, "update": {"seconds"}}
    return [row.model_dump(mode="json", exclude=taken) for row in rows]


def files(folder):
    """What the files of a run say happened in it, without its times."""
    found = {}
    for path in sorted(folder.glob("sessions/*/attempt_*/*")):
        name = str(path.relative_to(folder))
        if path.name == "guidance.txt":
            found[name] = path.read_text()
        if path.name == "words.json":
            found[name] = timeless(json.loads(path.read_text()))
        if path.name == "events.jsonl":
            found[name] = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
    return found


def timeless(value):
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in ("seconds", "time")}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def agentlab(*arguments):
    """(exit code, all that was printed) of a command line."""
    done = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    if isinstance(done.exception, LabError):
        return done.exception.exit_code, str(done.exception)
    return done.exit_code, done.output
