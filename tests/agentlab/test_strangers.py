"""A run that somebody else made: it neither stops who reads it, nor writes to the terminal."""

import json
import sys

import pytest
from made_runs import Made, make_run, task

from agentlab.cli import app as cli
from agentlab.disk.runs import read_run
from agentlab.view.library import Library

NASTY = "\x1b]0;owned\x07\x1b[2J[red]a:bomb:b[/red]\x9b31m\u202e"
"""Sets a window's title, clears the screen, is markup and an emoji code, and turns the direction of writing."""


@pytest.fixture
def verb(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["agentlab", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
            raise SystemExit(0)
        shown = capsys.readouterr()
        return ended.value.code, shown.out + shown.err

    return call


@pytest.fixture
def nasty_run(tmp_path):
    attempts = [Made(guidance_after=NASTY), Made(True)]
    folder = make_run(tmp_path / "run", [(task(NASTY, domain=NASTY), attempts)])
    path = folder / "config.json"
    stored = json.loads(path.read_text())
    stored["config"] |= {"policy": NASTY, "suite": NASTY}
    path.write_text(json.dumps(stored))
    return folder


@pytest.mark.parametrize(
    "how", [("report",), ("report", "--markdown"), ("compare",), ("compare", "--markdown"), ("rescore",), ("replay",)]
)
def test_names_of_a_stranger_are_text(verb, nasty_run, how, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    name, *options = how
    paths = [nasty_run, nasty_run] if name == "compare" else [nasty_run]
    _, shown = verb(name, *paths, *options)
    assert not [c for c in shown if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or c == "\u202e"]
    assert "\N{BOMB}" not in shown
    if how in (("report",), ("rescore",)):
        assert "a:bomb:b" in shown and "red]" in shown  # as it stands


@pytest.mark.parametrize(
    "attempts", ["1000000000", '"abc"', "-5", "NaN", "0", "null", "true", "[1]", "1e400", "9" * 5000, '{"a": 1}', "2.5"]
)
def test_a_number_of_attempts_that_is_none_stops_no_reader(verb, tmp_path, attempts):
    folder = make_run(tmp_path / "run", [(task("a"), [Made(), Made(True)])])
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"attempts": 3', f'"attempts": {attempts}'))
    code, shown = verb("report", folder)
    if len(attempts) == 5000:  # Python reads no such number: the file is damaged, and is named
        assert code == 4 and "config.json" in shown
        return
    assert code == 0
    run = read_run(folder)
    assert run.attempts == 2
    assert any("config.json" in problem for problem in run.problems)
    assert verb("compare", folder, folder)[0] == 0
    library = Library([folder])
    assert library.run(next(iter(library.runs())))["attempts"] == 2


def test_a_user_may_not_ask_for_what_no_reader_could_show(verb):
    code, shown = verb("run", "miniwob", "--attempts", "1000000000", "--dry-run")
    assert code == 2 and "attempts" in shown
