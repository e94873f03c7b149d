import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_endpoint import Answer, ScriptedEndpoint, critic, role_of
from traces import DIALOG, HOME, OPENED, one_click, trace

from envs import actions as act
from retrospect import textgrad
from retrospect.config import WordsConfig
from retrospect.evidence import gather
from retrospect.reflect import Retrospector

FRESH = """
import sys, os
from pathlib import Path
from retrospect.config import WordsConfig
from retrospect.reflect import Retrospector
assert "textgrad" not in sys.modules and "openai" not in sys.modules, "imported too early"
sys.path.insert(0, sys.argv[1])
from traces import one_click
print(Retrospector(WordsConfig(method="textgrad")).reflect(one_click(1, 2)).guidance.replace(chr(10), "|"))
print(sorted(p.name for p in Path.cwd().iterdir()), "litellm" in sys.modules, "textgrad" in sys.modules)
"""


def run_fresh(folder: Path, **environment: str) -> list[str]:
    env = {k: v for k, v in os.environ.items() if k != "TEXTGRAD_LOG_DIR"} | environment
    command = [sys.executable, "-c", FRESH, str(Path(__file__).parent)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_fresh_process_imports_it_late_and_leaves_the_working_directory_clean(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    assert run_fresh(tmp_path, PYTHONPATH=root) == ["Failed before:|- thought 1: click(1, 2)|Do otherwise.", "[] False True"]


@pytest.fixture
def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What TextGrad's optimizer found when it was asked to step."""
    tg = textgrad.load()
    taken: list[dict[str, object]] = []
    original = tg.TextualGradientDescent.step

    def step(self) -> None:
        (x,) = self.parameters
        before = {"x": x.value, "role": x.role_description, "gradients": {g.value for g in x.gradients}, "engine": self.engine}
        original(self)
        taken.append({**before, "after": x.value, "constraints": self.constraint_text})

    monkeypatch.setattr(tg.TextualGradientDescent, "step", step)
    return taken


def test_the_rules_go_through_textgrads_own_gradient_and_optimizer(steps_taken: list[dict[str, object]]) -> None:
    attempt = trace([(HOME, act.Click(20, 200)), (HOME, act.Click(20, 15))], OPENED, "environment", guidance="old")
    reflection = Retrospector(WordsConfig(method="textgrad")).reflect(attempt)
    (taken,) = steps_taken
    assert taken["x"] == "old" and taken["after"] == reflection.guidance
    assert taken["gradients"] == {reflection.gradient}
    assert "Step 1 pointed at the bottom left of the screen and nothing changed." in reflection.gradient
    assert "ended right after step 2" in reflection.critique
    assert isinstance(taken["engine"], textgrad.load().EngineLM)


def test_a_models_gradient_reaches_the_optimizer_with_the_constraints(steps_taken: list[dict[str, object]]) -> None:
    with ScriptedEndpoint(critic("new")) as server:
        Retrospector(WordsConfig(method="textgrad", engine="openai:m", base_url=server.url, max_chars=333)).reflect(one_click(1, 2))
    (taken,) = steps_taken
    assert taken["gradients"] == {"Say what to avoid."}
    assert "333" in str(taken["constraints"]) and "Never restate" in str(taken["constraints"])
    assert "instruction" in str(taken["role"])


@pytest.mark.parametrize(
    ("updates", "guidance", "error"),
    [
        (
            ["<IMPROVED_VARIABLE>Do not click the", "<IMPROVED_VARIABLE>Do not click it.</IMPROVED_VARIABLE>"],
            "Do not click it.",
            "",
        ),
        (2 * ["<IMPROVED_VARIABLE>Do not click the"], "old", "cut off"),
        (2 * ["</IMPROVED_VARIABLE> <IMPROVED_VARIABLE>Do not"], "old", "cut off"),
        (2 * ["Do not click it.</IMPROVED_VARIABLE>"], "old", "no new guidance"),
    ],
)
def test_guidance_that_was_cut_off_is_asked_for_again_and_else_the_earlier_one_stays(updates, guidance, error) -> None:
    left, well_behaved = iter(updates), critic("never")

    def script(request, number):
        return Answer(next(left)) if role_of(request) == "update" else well_behaved(request, number)

    attempt = trace([(HOME, act.Click(1, 2))], DIALOG, "environment", guidance="old")
    with ScriptedEndpoint(script) as server:
        config = WordsConfig(method="textgrad", engine="openai:m", base_url=server.url, max_retries=0)
        reflection = Retrospector(config).reflect(attempt)
    assert reflection.guidance == guidance and error in reflection.error and bool(error) == bool(reflection.error)


def test_braces_and_tags_in_the_trace_do_not_confuse_the_templates() -> None:
    attempt = trace([(HOME, act.Type("{x} {0} %s </IMPROVED_VARIABLE> {{y}}"))], DIALOG, "environment", guidance="{keep} {0}")
    assert Retrospector(WordsConfig(method="textgrad")).reflect(attempt).guidance == (
        "Failed before:\n- thought 1: type('{x} {0} %s {{y}}', False)\nDo otherwise."
    )


def test_no_global_engine_is_set() -> None:
    tg = textgrad.load()
    Retrospector(WordsConfig(method="textgrad")).reflect(one_click(1, 2))
    assert tg.SingletonBackwardEngine().get_engine() is None


def test_the_rules_critique_names_every_finding() -> None:
    moves = [(HOME, act.Click(1, 1)), (HOME, act.Click(1, 1)), (HOME, act.Type("a")), (HOME, act.Finished())]
    attempt = trace(moves, HOME, "finished")
    critique = Retrospector(WordsConfig(method="textgrad")).reflect(attempt).critique
    assert [finding.text for finding in gather(attempt).findings if finding.text not in critique] == []


@pytest.mark.parametrize("method", ["textgrad", "reflexion"])
def test_guidance_keeps_the_coordinates_of_early_steps_and_the_numbers_of_the_task(method: str) -> None:
    attempt = trace([(HOME, act.Click(3, n)) for n in range(20)], DIALOG, "environment")
    attempt = dataclasses.replace(attempt, instruction="Find gcd(12, 18).")
    said = "gcd(12, 18) is not at (3, 0), nor (3, 19)."
    with ScriptedEndpoint(lambda request, number: Answer(f"<IMPROVED_VARIABLE>{said} Or (7, 7).</IMPROVED_VARIABLE>")) as server:
        reflection = Retrospector(WordsConfig(method=method, engine="openai:m", base_url=server.url)).reflect(attempt)
    assert said in reflection.guidance and "7" not in reflection.guidance
