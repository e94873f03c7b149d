"""The update beside the reset and the next prompt (ROSA App. E.3): it saves seconds and changes no number."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import pytest
from safetensors.torch import load_file

from agentlab.results.metrics import summarize
from agentlab.results.report import summary_lines
from agentlab.run.ahead import Ready, beside
from agentlab.run.resolve import resolve
from agentlab.run.runner import Runner
from envs.errors import AdaptationError, InfrastructureError
from tests.policies.causal.test_causal import save


def ready() -> Ready:
    return Ready({"text": "x"}, {}, 0.5)


def test_the_solve_runs_while_the_task_is_reset():
    reset, solved = threading.Event(), threading.Event()

    def solve() -> str:
        assert reset.wait(20)  # comes only from the other side, while this one runs
        solved.set()
        return "update"

    def prepare() -> Ready:
        reset.set()
        assert solved.wait(20)
        return ready()

    found = beside(solve, prepare)
    assert found.made == "update" and isinstance(found.ready, Ready) and found.hidden > 0
    assert beside(lambda: 1, None).hidden == 0


def test_what_fails_on_either_side_is_told_where_it_belongs():
    def broken() -> Ready:
        raise InfrastructureError("gone", component="browser")

    found = beside(lambda: 1, broken)
    assert found.made == 1 and isinstance(found.ready, InfrastructureError)  # of the next attempt, not of the update

    def refused() -> int:
        raise AdaptationError("NaN")

    with pytest.raises(AdaptationError):
        beside(refused, ready)


@pytest.mark.parametrize("preset", ["rosa", "rosa-paper"])
def test_the_same_numbers_bit_for_bit(tmp_path, preset):
    model = save(tmp_path / "model")
    questions = tmp_path / "own.jsonl"
    lines = [{"id": f"q{n}", "question": f"w{n} w{n + 1} w{n + 2}", "answer": "w39", "kind": "word"} for n in range(2)]
    questions.write_text("\n".join(map(json.dumps, lines)))

    def run(name: str, overlap: bool):
        flags = {"suite": f"reasoning:{questions}", "policy": str(model), "adapt": {"preset": preset}, "attempts": 4, "workers": 1,
                 "history": "conversation", "out": tmp_path / name, "overlap": overlap, "keep_adapters": "all",
                 "sampling": {"max_new_tokens": 12, "no_repeat": False}, "model": {"device": "cpu", "instruct": False}}  # fmt: skip
        rows = Runner(resolve(flags)).run()
        return rows, digests(tmp_path / name)

    beside_rows, beside_files = run("beside", True)
    after_rows, after_files = run("after", False)
    learned = [row for row in beside_rows if row.update is not None]
    assert learned and all(row.hidden_seconds > 0 for row in learned) and not any(row.hidden_seconds for row in after_rows)
    assert beside_files == after_files and sum("adapter" in name for name in beside_files) >= len(learned)
    for one, other in zip(beside_rows, after_rows, strict=True):
        assert one.model_dump(exclude=TIMED) == other.model_dump(exclude=TIMED)
        assert strip(one.update) == strip(other.update)
    assert any(name == "seconds per update, hidden" for name, _ in summary_lines(summarize(beside_rows, attempts=4)))


TIMED = {"seconds", "memory", "hidden_seconds", "update"}


def strip(update) -> dict | None:
    if update is None:
        return None
    clocks = ("seconds", "memory")
    return {name: value for name, value in update.model_dump().items() if not any(clock in name for clock in clocks)}


def digests(run: Path) -> dict[str, str]:
    """Of every file that holds numbers and no clock: adapters, what the updates did to each token, and the replies with their log p."""
    found = {}
    for path in sorted(run.glob("sessions/*/attempt_*/**/*")):
        name = str(path.relative_to(run))
        if path.suffix == ".safetensors":  # its header has the metadata in any order
            bits = b"".join(key.encode() + tensor.numpy().tobytes() for key, tensor in sorted(load_file(path).items()))
            found[name] = hashlib.sha256(bits).hexdigest()
        elif path.name == "tokens.json":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == "events.jsonl":
            events = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = repr([(e.get("text"), e.get("token_ids"), e.get("token_logprobs")) for e in events])
    return found
