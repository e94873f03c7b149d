"""A run is not continued with other weights, or other tasks, under the names that its settings have."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from agentlab.disk.runs import read_rows
from agentlab.run.identity import NOTE, digest_of, weights_of
from agentlab.run.resolve import resolve
from agentlab.run.runner import Runner
from envs.base import TaskSpec
from envs.errors import PolicyError, StoreError
from policies.prior.policy import StartingPolicy

sys.path.insert(0, str(Path(__file__).parents[1] / "own"))

from guessing import Guesser


class Weighted(Guesser):
    """Has weights, in a file that may be replaced."""

    weights = "old"

    def fingerprint(self):
        if self.weights == "unknown":
            raise PolicyError("This head cannot be told from another.")
        return self.weights


@pytest.fixture
def questions(tmp_path, monkeypatch):
    """Writes a file of questions; what was read of the one before is forgotten, as in another process."""
    from envs.reasoning.suite import items_of

    module = ModuleType("weighted")
    module.Weighted = Weighted
    monkeypatch.setitem(sys.modules, "weighted", module)

    def write(*texts):
        lines = [{"question": text, "answer": str(len(text)), "kind": "number"} for text in texts]
        (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        items_of.cache_clear()

    write("one", "two", "three")
    return write


def run(tmp_path, limit=None, policy="weighted:Weighted"):
    settings = {"suite": f"reasoning:{tmp_path}/q.jsonl", "policy": policy, "attempts": 1, "out": tmp_path / "run"}
    return Runner(resolve(settings | ({"limit": limit} if limit else {}))).run()


def test_a_file_of_questions_that_was_replaced_is_refused(tmp_path, questions):
    (row,) = run(tmp_path, 1)
    before = (tmp_path / "run/identity.json").read_text()
    questions("uno", "dos", "tres")  # with the same ids, which are the numbers of the lines
    with pytest.raises(StoreError, match=rf"was begun with other tasks than reasoning:.* has now \(1 of those begun: {row.task}\)"):
        run(tmp_path, 2)
    assert len(read_rows(tmp_path / "run")) == 1 and (tmp_path / "run/identity.json").read_text() == before
    questions("one", "two", "three")
    assert len(run(tmp_path, 2)) == 2


def test_questions_that_were_not_begun_may_change_and_others_may_come(tmp_path, questions):
    (row,) = run(tmp_path, 1)
    kept = {f"{number:05d}_0": text for number, text in enumerate(("one", "two", "three"), start=1)}
    questions(*(text if task == row.task else f"{text}, again" for task, text in kept.items()))
    assert len(run(tmp_path, 3)) == 3
    questions("one")  # and now two of those begun are gone
    with pytest.raises(StoreError, match=r"\([23] of those begun"):
        run(tmp_path, 3)


def test_weights_that_were_replaced_are_refused(tmp_path, questions, monkeypatch):
    run(tmp_path, 1)
    monkeypatch.setattr(Weighted, "weights", "new")
    with pytest.raises(StoreError, match="begun with other weights than the policy guesser has now"):
        run(tmp_path, 2)
    assert len(read_rows(tmp_path / "run")) == 1
    monkeypatch.setattr(Weighted, "weights", "unknown")  # nothing is known of them: nothing is refused, and what was known is kept
    assert len(run(tmp_path, 2)) == 2
    monkeypatch.setattr(Weighted, "weights", "new")
    with pytest.raises(StoreError, match="other weights"):
        run(tmp_path, 3)


def test_a_run_from_before_there_was_a_note_goes_on_and_has_one_then(tmp_path, questions, monkeypatch):
    run(tmp_path, 1)
    (tmp_path / "run" / NOTE).unlink()
    questions("uno", "dos", "tres")
    monkeypatch.setattr(Weighted, "weights", "new")
    assert len(run(tmp_path, 2)) == 2
    assert json.loads((tmp_path / "run" / NOTE).read_text())["policy"] == "new"


def test_a_start_that_failed_fixes_nothing_and_a_damaged_note_is_named(tmp_path, questions):
    (tmp_path / "run").mkdir()
    run(tmp_path, 1)
    note = tmp_path / "run" / NOTE
    note.write_text("{")
    with pytest.raises(StoreError, match=r"identity\.json is corrupt") as refused:
        run(tmp_path, 2)
    assert f"Remove {note}" in refused.value.hint
    for path in tmp_path.glob("run/sessions/*/*/result.json"):
        path.unlink()
    (tmp_path / "run/results.jsonl").unlink()
    assert len(run(tmp_path, 1)) == 1 and json.loads(note.read_text())["policy"] == "old"


def test_a_task_is_what_makes_it_and_not_where_its_files_lie():
    task = TaskSpec("agentlab/x-v0", "a", 1, 5, options={"task": {"file": "/here/a.json", "say": "click"}, "n": [1, 2]})
    moved = replace(task, domain="d", repeat=2, options={"task": {"file": "/there/a.json", "say": "click"}, "n": (1, 2)})
    assert digest_of(moved) == digest_of(task)
    for other in (replace(task, max_steps=6), replace(task, options={"task": {"say": "type"}}), replace(task, feasible=False)):
        assert digest_of(other) != digest_of(task)


def test_of_a_served_model_nothing_is_known_whether_its_head_is_here_or_not():
    class Served(StartingPolicy):
        name = "served"
        engine = SimpleNamespace(head_weight=None)

        def open(self, task, *, seed, adapt=None):
            raise NotImplementedError

    assert weights_of(Served()) == ""
