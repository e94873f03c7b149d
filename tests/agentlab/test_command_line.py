"""Whatever is typed: an answer, or one clear message and an exit code; never a traceback, never a wait without end.

The lines are made from the verbs and options that there are, so that a new one is tried as soon as it exists.  Every failure names
its line; ``AGENTLAB_COMMAND_LINES=5000 pytest tests/agentlab/test_command_line.py`` tries more, ``--hypothesis-seed=N`` others.
"""

import io
import os
import random
import signal
import sys

import pytest
import typer
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from made_runs import Made, make_run, task

from agentlab.cli import app as cli
from envs.errors import SetupError

COUNT = int(os.environ.get("AGENTLAB_COMMAND_LINES", "500"))
PATIENCE = 600
"""Seconds after which a line counts as a hang; much, since others may work on the machine."""
REACHING_OUT = {"fetch", "setup", "doctor", "serve"}
"""Verbs that go to the network or to other programs: only their options are read."""
LONG = "x" * 5000
TEXTS = [
    "", " ", ".", "..", "/", "~", "~nobody", "-", "--", "-1", "0", "1", "2.5", "1e400", "nan", "inf", "-inf", "9" * 20, "9" * 5000,
    "0x" + "f" * 4000, "true", "null", "None", "[", "[" * 3000, "{a: " * 500, "&a [*a]", "a=b", "=", "a.b.c=1", "env.x=[[[", LONG,
    f"{LONG}/{LONG}", "a\x00b", "\x1b[2J", "a\nb", "a\tb", "\u202eabc", "\ud800", "\udcff\udcfe", "é", "表格", "🙂", ":bomb:", "[red]x",
    "%s%n", "$(id)", "`id`", "'", '"', "\\", ";", "*", "?", "a,b", ",", ",,", "a:b", ":", "a:", ":b", "os:system", "os:sep", "json:loads",
    "openai:", "openai:x", "org/model", "org/" + "m" * 300, "http://[", "127.0.0.1:99999", "/dev/null", "/dev/zero", "/dev/full",
    "/proc/self/mem", "/etc/passwd", "/nowhere/x", "/proc/x", "file", "folder", "pipe", "circle", "dead", "run", "run/config.json",
    "run/a_1", "run/a_1/1", "run/a_1/99999999", "damaged", "bad.yaml", "bad.toml", "bad.json", "odd.yaml", "2001-13-45", "!!binary abc",
]  # fmt: skip
SETS = [
    "attempts", "limit", "seed", "tasks", "policy", "suite", "out", "workers", "history", "track", "max_steps", "success_threshold", "env",
    "env.x", "env.browser", "env.accessibility", "env.provider", "model", "model.x", "sampling", "temperature", "top_p", "adapt", "beta",
    "adapt.weights", "adapt.words", "adapt.words.method", "adapt.weights.method", "words.engine", "words.base_url", "words.max_chars",
    "x", "", ".", "a.b", "adapt.x.y", "osworld.screen", "__class__", "model.base_url", "words.timeout_s",
]  # fmt: skip
RIGHT = {
    "suite": ["miniwob", "miniwob-core", "osworld-light", "reasoning", "androidworld", "osworld:folder", "miniwob:folder", "os:sep"],
    "policy": ["random", "noop", "ui-tars-nano", "openai:m", "folder"],
    "adapt": ["none", "rosa", "rosa2", "textgrad+rosa", "+", "a+b"],
    "form": ["atif", "sft", "pairs", "datasets", "osworld", "androidworld"],
    "family": ["ui_tars", "qwen3_vl", "plain"],
    "run_dir": ["run", "damaged"],
    "run_dirs": ["run", "damaged"],
    "target": ["run", "run/a_1", "damaged"],
    "tasks": ["click-test", "click-test,click-button"],
    "limit": ["1", "3"],
    "size": ["100x100", "1x99999"],
    "out_dir": ["out/1", "out/2/3"],
    "config": ["good.yaml"],
    "plan": ["good.json"],
    "work": ["work"],
    "base": ["folder"],
    "provider": ["light", "127.0.0.1:1"],
    "reward": ["sparse", "critique"],
    "track": ["tensorboard"],
    "part": ["core", "light", "folder"],
    "masks": ["1,1,2,2"],
    "suite_dir": ["folder"],
    "platform": ["computer", "mobile"],
    "results": ["folder", "run"],
    "recipe": ["ui-tars-7b-sft@osworld"],
}  # fmt: skip


COMMAND = typer.main.get_command(cli.app)
"""Built once, and not for every line."""


def verbs(command=None, path=()):
    """(words, parameters) of every verb, from the application itself."""
    command = command or COMMAND
    if not hasattr(command, "list_commands"):
        yield path, command.params
        return
    for name in command.list_commands(None):
        if path[:1] and path[0] in REACHING_OUT:
            yield (*path, name, "--help"), []
        else:
            yield from verbs(command.get_command(None, name), (*path, name))


LETTERS = [*range(0x250), *range(0x590, 0x700), *range(0x2010, 0x2070), *range(0xD7F0, 0xD810), *range(0x1F600, 0x1F610)]
"""Code points of texts: control characters, Latin, Hebrew and Arabic, marks of direction, surrogates, emoji."""
VERBS = [(path, params) for path, params in verbs() if path[0] not in REACHING_OUT or path[-1] == "--help"]
RUN = next(verb for verb in VERBS if verb[0] == ("run",))


def value(chance, param, *, wild):
    """A value that the parameter can have, or anything."""
    anything = (
        chance.choice(TEXTS) if chance.random() < 0.8 else "".join(chr(chance.choice(LETTERS)) for _ in range(chance.randrange(12)))
    )
    if param.name == "sets":
        key = chance.choice(SETS)
        return anything if wild and chance.random() < 0.2 else f"{key}={anything if wild or not key else 1}"
    return anything if wild else chance.choice(RIGHT.get(param.name, ["1"]))


def line(seed):
    """A verb with its arguments, most of them as they should be."""
    chance = random.Random(seed)
    path, params = RUN if chance.random() < 0.5 else chance.choice(VERBS)
    wanted = [p for p in params if p.name != "help" and (p.param_type_name == "argument" or p.required or chance.random() < 0.25)]
    odd = set(chance.sample(range(len(wanted)), min(len(wanted), chance.randrange(3))))
    words = list(path)
    for place, param in enumerate(wanted):
        if param.param_type_name == "option":
            words.append(chance.choice([*param.opts, *param.secondary_opts]))
        if not getattr(param, "is_flag", False):
            words.append(value(chance, param, wild=place in odd))
    if chance.random() < 0.05:
        words.insert(chance.randrange(len(words) + 1), chance.choice([*TEXTS, "--hlep", "-x", "--tasks"]))
    return [*words, "--dry-run"] if path == ("run",) else words


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what lines may point at; no engine, no browser and no server can be reached from it."""
    here = tmp_path_factory.mktemp("here")
    (here / "file").write_text("text")
    (here / "folder").mkdir()
    os.mkfifo(here / "pipe")
    (here / "circle").symlink_to("circle")
    (here / "dead").symlink_to("nowhere")
    make_run(here / "run", [(task("a"), [Made(), Made(True)])])
    make_run(here / "damaged", [(task("a"), [Made()])])
    (here / "damaged/config.json").write_bytes(b"\xff{")
    (here / "good.yaml").write_text("attempts: 2")
    (here / "good.json").write_text('{"steps": 2}')
    (here / "bad.yaml").write_text("a: [b")
    (here / "bad.toml").write_text("= 1")
    (here / "bad.json").write_text("[1]")
    (here / "odd.yaml").write_text("adapt: 5\nattempts: many\n? [a]\n: b\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for name, value in {
            "DOCKER_HOST": "unix:///nowhere.sock", "AGENTLAB_BROWSER": "/nowhere/chromium", "HF_HUB_OFFLINE": "1", "COLUMNS": "120",
            "HOME": str(here), "OPENAI_API_KEY": "",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        patch.setattr(cli, "app", COMMAND)
        patch.setattr("uvicorn.run", lambda *_, **__: None)
        patch.setattr("agentlab.pretrain.pipeline._collect", _no_browser)
        yield here


def _no_browser(*_):
    raise SetupError("There is no browser.")


def call(words):
    """Run the command line in this process: (exit code, what it says)."""

    def hangs(*_):
        raise AssertionError("it hangs")

    said = io.StringIO()
    before, streams, argv = signal.signal(signal.SIGALRM, hangs), (sys.stdin, sys.stdout, sys.stderr), sys.argv
    signal.alarm(PATIENCE)
    sys.stdin, sys.stdout, sys.stderr = io.StringIO("Action: click(start_box='(1,2)')"), said, said
    sys.argv = ["agentlab", *words]
    try:
        cli.main()
        return 0, said.getvalue()
    except SystemExit as ended:
        return ended.code or 0, said.getvalue()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        sys.argv = argv
        sys.stdin, sys.stdout, sys.stderr = streams


@settings(
    max_examples=COUNT, deadline=None, derandomize="AGENTLAB_COMMAND_LINES" not in os.environ, database=None, print_blob=True,
    suppress_health_check=list(HealthCheck), phases=[Phase.generate],
)  # fmt: skip
@given(seed=st.integers(0, 2**32))
def test_no_line_is_a_traceback_or_a_hang(place, seed):
    words = line(seed)
    note(repr(words)[:2000])
    code, said = call(words)
    note(said[-3000:])
    assert "Traceback" not in said
    assert code in (0, 1, 2, 3, 4, 5, 6, 7)
    assert "error:" in said or code in (0, 1) or "Usage:" in said or words[:1] == ["replay"]
    if "error:" in said:
        assert len(said[said.rindex("error:") :]) < 4000
