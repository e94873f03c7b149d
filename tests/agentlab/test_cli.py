"""What a person sees at the command line when something is wrong, and when nothing is."""

import os
import subprocess
import sys

import pytest

from agentlab.cli import app as cli


@pytest.fixture
def agentlab(monkeypatch, capsys, tmp_path):
    """Run the command line in this process, in an empty directory: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["agentlab", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out, shown.err

    return call


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "minivob"], 2, "Did you mean 'miniwob"),
        (["run", "miniwob", "--tasks", "click-tset", "--policy", "random"], 2, "Did you mean 'click-test'"),
        (["run", "miniwob", "--tasks", "chase-circle", "--policy", "random"], 2, "target moves"),
        (["run", "miniwob", "--policy", "randum"], 2, "Did you mean 'random'"),
        (["run", "miniwob", "--policy", "./absent/model", "--limit", "1", "--dry-run"], 5, "no checkpoint at"),
        (["run", "miniwob", "--adapt", "roza2"], 2, "Did you mean 'rosa"),
        (["run", "miniwob", "--attempts", "0"], 2, "greater than or equal to 1"),
        (["run", "miniwob", "--set", "atempts=3"], 2, "Did you mean 'attempts'"),
        (["run", "miniwob", "--config", "missing.yaml"], 2, "Cannot read"),
        (["run", "miniwob", "--policy", "random", "--out", "/proc/nowhere"], 4, "Cannot use"),
        (["run", "miniwob", "--policy", "random", "--adapt", "rosa", "--limit", "1"], 2, "weights"),
        (["run", "miniwob", "--policy", "random", "--adapt", "textgrad", "--set", "words.engine=self"], 2, "policy that can write"),
        (
            [
                "run",
                "miniwob",
                "--policy",
                "openai:ui-tars-7b-dpo",
                "--adapt",
                "rosa2",
                "--set",
                "model.base_url=http://127.0.0.1:9/v1",
            ],
            2,
            "weights",
        ),
        (["run", "miniwob", "--adapt", "rosa", "--reward", "judge"], 2, "a judge is a model"),
        (["run", "miniwob", "--adapt", "rosa", "--reward", "dense"], 2, "'sparse', 'critique' or 'judge'"),
        (["run", "miniwob", "--reward", "judg"], 2, "'sparse', 'critique' or 'judge' (got 'judg')"),
        (["run", "miniwob", "--set", "adapt.words.judge_sees=al"], 2, "(got 'al')"),
        (["run", "miniwob", "--reward", "critique"], 2, "does not change the weights"),
        (["tasks", "miniwop"], 2, "Did you mean 'miniwob"),
        (["fetch", "oswrld"], 2, "Did you mean 'osworld'"),
        (["setup", "osworld"], 2, "nothing to set up for 'osworld'"),
        (["run", "miniwob", "--policy", "os:sep", "--dry-run"], 2, "is a str, not a policy"),
        (["run", "miniwob", "--set", "adapt.words.method=os:sep", "--dry-run"], 2, "is not a function"),
        (["import", "miniwob"], 2, "nothing to import from 'miniwob'"),
        (["containers", "up", "miniwob"], 2, "has no machines to start"),
        (["containers", "up", "androidworld", "--set", "memory_gb=4"], 2, "no option 'memory_gb'"),
        (["containers", "up", "androidworld", "--set", "gpu=fast"], 2, "androidworld.gpu is 'fast'"),
        (["containers", "up", "--set", "rams=4G"], 2, "Did you mean 'ram'"),
        (["containers", "build", "androidworld"], 2, "has no image to build"),
        (["report", "."], 4, "not a run directory"),
    ],
)
def test_errors_say_what_and_how_to_mend_it(agentlab, arguments, code, says):
    got, out, err = agentlab(*arguments)
    assert (got, out) == (code, "") and says in err


def test_a_foreign_directory_is_refused(agentlab, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, err = agentlab("run", "miniwob", "--policy", "random", "--out", tmp_path)
    assert code == 4 and "not a run directory" in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_corrupt_config_is_refused(agentlab, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{")
    code, _, err = agentlab("run", "miniwob", "--policy", "random", "--out", "run")
    assert code == 4 and "config.json is corrupt" in err
    assert "put a copy of run/config.json back" in err and "remove" not in err  # the results beside it may be a week's work


def test_dry_run_shows_the_plan_and_starts_nothing(agentlab, tmp_path):
    code, out, _ = agentlab("run", "miniwob", "--policy", "random", "--limit", "12", "--seed", "3", "--dry-run")
    assert code == 0
    assert "12 sessions, up to 5 attempts" in out and "… and 2 more" in out and "seed: 3" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("policy", "fetched"), [("openai:org/ui-tars-1.5-7b", False), ("org/model", True), ("ui-tars-2b-sft", True)]
)
def test_dry_run_tells_a_model_on_the_hub_from_one_behind_an_endpoint(agentlab, policy, fetched):
    code, out, _ = agentlab("run", "miniwob", "--policy", policy, "--limit", "1", "--dry-run")
    assert code == 0 and ("from the Hugging Face hub" in out) is fetched


def test_a_chat_model_without_a_gpu_is_not_sent_to_an_endpoint_that_would_refuse_it(agentlab, monkeypatch):
    monkeypatch.setattr("agentlab.run.needs._gpu_gigabytes", lambda: None)
    code, out, _ = agentlab("run", "reasoning", "--policy", "qwen3-8b", "--limit", "1", "--dry-run")
    assert code == 0 and "--policy served:URL" in out and "openai:qwen3-8b" not in out


def test_tasks_lists_what_is_left_out_with_the_reason(agentlab):
    code, out, _ = agentlab("tasks", "miniwob")
    assert code == 0
    assert "click-test-2\n" in out and "chase-circle  excluded: the target moves" in out


def test_doctor_names_what_is_missing_and_the_remedy(agentlab, monkeypatch):
    monkeypatch.setenv("AGENTLAB_BROWSER", "/nowhere/chromium")
    code, out, _ = agentlab("doctor")
    lines = [line for line in out.splitlines() if "browser" in line]
    assert code == 3 and len(lines) == 1 and "missing" in lines[0] and "agentlab setup miniwob" in lines[0]


def test_doctor_says_of_an_engine_that_is_not_there_how_to_start_it_and_not_to_free_its_disk(agentlab, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    _, out, _ = agentlab("doctor")
    line = next(line for line in out.splitlines() if "disk for AndroidWorld" in line)
    assert "Start it" in line and "docker system df" not in line
    assert any(line.startswith("ok") and "torch:" in line for line in out.splitlines())


def test_version(agentlab):
    code, out, _ = agentlab("--version")
    assert code == 0 and out.strip()[0].isdigit()


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["tasks", "miniwob"]])
def test_help_does_not_load_the_models_machinery(arguments):
    code = (
        "import sys; sys.argv = ['agentlab', *sys.argv[1:]]\nfrom agentlab.cli.app import main\ntry:\n    main()\n"
        "except SystemExit:\n    pass\nassert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, timeout=120)


def test_too_little_memory_is_said_at_once():
    code = f"ulimit -v 300000; exec {sys.executable} -m agentlab benchmarks"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3 and done.stdout == "" and "292 MB of memory" in done.stderr and "ulimit -v" in done.stderr


@pytest.mark.parametrize(
    ("how", "code"), [("--policy \u8868 2>&1", 2), ("--limit 1 | head -1", 0), ("--limit 1 >/dev/full", 4), ("--limit 1 >&-", 0)]
)
def test_any_locale_and_any_standard_output_will_do(tmp_path, how, code):
    command = f"set -o pipefail; ulimit -n 64; {sys.executable} -m agentlab run miniwob --policy random --dry-run {how}"
    alike = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path, env=os.environ | alike
    )
    assert done.returncode in ((0, 141) if "head" in how else (code,))  # whether the reader had gone already is a matter of luck
    assert "Traceback" not in done.stderr + done.stdout and "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("benchmarks | true", 141),
        ("settings attempts | true", 141),
        ("run minivob 2>&1 >/dev/null | true", 141),
        ("run minivob 2>/dev/full | cat", 2),
        ("2>/dev/full | cat", 2),
    ],
)
def test_streams_that_take_nothing_have_an_exit_code_of_their_own(line, code):
    """Of ``replay``, 1 says that it diverged."""
    command = f"{sys.executable} -m agentlab {line}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (code, "")
