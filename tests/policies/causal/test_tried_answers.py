"""Which answers of a text policy count as tried, and which replies as answers at all."""

from __future__ import annotations

import pytest
from test_causal import save, task

from policies.methods import NoneConfig
from policies.registry import load_policy
from policies.sampling import SamplingConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("llama"))


APART = {
    "word": [("St. Louis", "St. Paul"), ("Dr. Smith", "Dr. Jones"), ("No. 5", "No. 7"), ("force = mass", "energy = mass")],
    "list": [("x = 1, y = 2", "z = 1, y = 2")],
    "math": [("Answer: $A + b$", "Answer: $a + b$")],
    "code": [
        ("The final answer is:\n```python\ndef f(): return 1\n```", "The final answer is:\n```python\ndef f(): return 2\n```"),
        ("```python\ndef f(s):\n    # the answer is s\n    return s\n```",
         "```python\ndef f(s):\n    # the answer is s\n    return -s\n```"),
        ("if x:\n    y\nz", "if x:\n    y\n    z"), ("print('A')", "print('a')"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", APART)
def test_answers_that_a_grader_may_tell_apart_are_not_one_that_was_tried(kind):
    from envs.answer_forms import told_apart
    from envs.reasoning.graders import grade
    from envs.reasoning.items import Item

    for right, wrong in APART[kind]:
        assert None not in (told_apart(kind, right), told_apart(kind, wrong)) and told_apart(kind, right) != told_apart(kind, wrong)
        if kind in ("word", "list"):
            item = Item(question="?", answer=right, kind=kind)
            assert (grade(item, right).score, grade(item, wrong).score) == (1.0, 0.0)
    assert told_apart("code", "Here:\n```python\nx = 1  \n```") == told_apart("code", "```\nx = 1\n```\nDone.")
    assert told_apart("number", "42 or 43") is None and told_apart("code", " ") is None


def test_what_is_no_answer_is_not_drawn_in_the_place_of_one(folder):
    """A reply that no grader can find right is no new answer: of a number one without a number."""
    session = load_policy(str(folder), sampling=SamplingConfig(temperature=1.0, no_repeat=True), device="cpu").open(
        task(kind="number"), seed=0, adapt=NoneConfig()
    )
    counts = session._exclusion().counts
    assert counts("42") and not counts("42 or 43") and not counts("I do not know.") and not counts(" ")
    session._begun = True  # the prompt begins a thought
    assert not counts("42") and counts("so</think>42")


def test_a_hint_of_an_attempt_that_does_not_count_is_forgotten(folder):
    sampling = SamplingConfig(temperature=1.0, no_repeat=True, consistent=True)
    session = load_policy(str(folder), sampling=sampling, device="cpu").open(task(kind="number"), seed=0, adapt=NoneConfig())
    session.begin("?", attempt=1)
    session._texts_now = ["50"]
    session.heed("That is wrong: too large.")
    assert not session._could_be("60") and session._could_be("40")
    session.begin("?", attempt=1)  # the attempt was void
    assert session._could_be("60")
    session._texts_now = ["50"]
    session.heed("That is wrong: too large.")
    session.begin("?", attempt=2)
    assert not session._could_be("60") and session._could_be("40")
