"""Graders: every form of a right answer counts, and nothing that only contains one."""

from __future__ import annotations

import time

import pytest

from envs.errors import UsageError
from envs.reasoning import mathematics
from envs.reasoning.graders import grade
from envs.reasoning.items import Item, read_items
from tests.envs.reasoning.forms import CHOICES, NUMBERS, OTHERS, STRICTER

pytest.importorskip("math_verify", reason="pip install math-verify")

GROUPS = [*NUMBERS, *OTHERS]


def item(kind: str, answer: str) -> Item:
    return Item(question="?", answer=answer, kind=kind, choices=CHOICES if kind == "choice" else ())


@pytest.mark.parametrize(("kind", "gold", "right", "wrong"), GROUPS, ids=[f"{kind} {gold}" for kind, gold, _, _ in GROUPS])
def test_forms_of_answers(kind: str, gold: str, right: list[str], wrong: list[str]) -> None:
    one = item(kind, gold)
    assert [text for text in right if grade(one, text).score != 1.0] == []
    assert [text for text in wrong if grade(one, text).score != 0.0] == []
    assert {grade(one, text).answer for text in right} != {None}


def test_there_are_two_hundred_forms_and_more() -> None:
    assert sum(len(right) + len(wrong) for _, _, right, wrong in GROUPS) >= 350


def test_against_math_verifys_own_verdicts() -> None:
    """Of what is wrong, math-verify takes only the replies listed, each of which has not committed itself."""
    from math_verify import parse, verify

    taken, refused, agreed = set(), 0, 0
    for _, gold, right, wrong in NUMBERS:
        reference = parse(f"${gold}$", parsing_timeout=None)
        for text in wrong:
            if verify(reference, parse(text, parsing_timeout=None), timeout_seconds=None):
                taken.add((gold, text))
        for text in right:
            own = verify(reference, parse(text, parsing_timeout=None), timeout_seconds=None)
            refused, agreed = refused + (not own), agreed + own
    assert taken == STRICTER
    assert agreed > 90  # it reads mathematics in dollars only, and no words


def test_an_expression_that_never_ends_is_a_wrong_answer_and_the_next_one_is_graded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathematics, "SECONDS", 3.0)
    started = time.monotonic()
    assert grade(item("math", r"\sqrt{2}"), r"\boxed{9^{9^{9^{9^{9}}}}}").score == 0.0
    assert grade(item("math", r"\sqrt{2}"), r"\boxed{" + r"\sqrt{" * 900 + "2" + "}" * 900 + "}").score == 0.0
    assert grade(item("math", r"\sqrt{2}"), r"\boxed{\sqrt{2}}").score == 1.0
    assert time.monotonic() - started < 120


@pytest.mark.parametrize("kind", ["math", "number", "word", "list", "bool", "choice"])
def test_long_replies_are_read_in_linear_time(kind: str) -> None:
    one = item(kind, {"choice": "B", "bool": "yes"}.get(kind, "42"))
    started = time.process_time()
    for text in ("1 " * 50_000, "answer is " * 20_000, "\\boxed{" * 20_000, "(" * 100_000, " " * 100_000, "a, " * 50_000, "\n" * 100_000,
                 "- " * 60_000, "=" * 100_000, "**" * 50_000, "is " * 60_000, "not " * 50_000, "$" * 100_000):  # fmt: skip
        grade(one, text)
    assert time.process_time() - started < 20


def test_hints_say_what_is_wrong_and_not_what_is_right() -> None:
    assert grade(item("number", "42"), "50").hint == "too large"
    assert grade(item("number", "42"), "The answer is -3").hint == "too small"
    assert grade(item("choice", "B"), "A").hint == "A is not right"
    assert grade(item("choice", "B"), "E").hint == "E is not one of the options"
    assert "letters" in grade(item("word", "nus"), "sunny").hint
    assert grade(item("number", "42"), "no idea").hint == "I cannot find one final answer in that"
    for kind, gold, _, wrong in GROUPS:
        if kind in ("number", "word"):
            assert all(gold not in grade(item(kind, gold), text).hint for text in wrong)


def test_equal_answers_have_equal_forms() -> None:
    one = item("number", "42")
    assert len({grade(one, text).answer for text in ("1/2", "0.5", "50%", r"\frac{1}{2}", "Answer: .5")}) == 1
    assert grade(one, "43").answer != grade(one, "44").answer


def test_items_of_a_file(tmp_path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(
        '{"question": "1+1?", "answer": 2, "kind": "number"}\n\n{"question": "Yes?", "answer": true, "kind": "bool", "id": "b"}\n'
    )
    assert [(one.id, one.answer) for one in read_items(path)] == [("00001", "2"), ("b", "True")]
    for bad, said in [
        ('{"question": "?"}', "an answer is needed"), ("not json", "is not JSON"),
        ('{"question": "?", "answer": "Z", "kind": "choice"}', "letters"),
        ('{"question": "?", "kind": "code"}', "tests"), ("[" * 100_000, "line 1"), ("", "no question"),
        ('{"question":"a","answer":"1","id":"x"}\n{"question":"b","answer":"1","id":"x"}', "occurs twice"),
    ]:  # fmt: skip
        path.write_text(bad)
        with pytest.raises(UsageError, match=said):
            read_items(path)
