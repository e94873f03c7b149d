"""What a hint rules out is exactly what the grader would have said otherwise of."""

from __future__ import annotations

import itertools

import pytest

from envs.answer_forms import normal_form
from envs.answer_hints import could_be, hint, objection, spoken
from envs.reasoning.graders import grade
from envs.reasoning.items import Item

ANSWERS = {
    "number": ("3", "-4", "0", "12", "1/2", "1000", "seven"),
    "word": ("cat", "cow", "dog", "horse", "two words", "a1"),
    "list": ("a, b, c", "a, c, b", "b, a, c", "a, b", "1, 2", "b"),
    "bool": ("yes", "no"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_is_ruled_out_if_and_only_if_the_grader_would_have_said_something_else(kind):
    for right, said, other in itertools.product(ANSWERS[kind], repeat=3):
        verdict = grade(Item(question="?", answer=right, kind=kind), said)
        if verdict.score == 1.0:
            continue
        told = spoken(kind, objection(verdict.hint))
        assert told == verdict.hint and normal_form(kind, said) == verdict.answer
        form = normal_form(kind, other)
        same = grade(Item(question="?", answer=other, kind=kind), said)
        assert could_be(kind, form, verdict.answer, told) == (same.score == 0.0 and (not told or same.hint == told))
        assert could_be(kind, normal_form(kind, right), verdict.answer, told)  # the right one is never ruled out


def test_of_an_expression_no_side_is_known():
    assert could_be("math", "sqrt(2)", "3", "too large") and not could_be("math", "4", "3", "too large")
    assert could_be("number", "2", "3", "too large") and not could_be("number", "3", "3", "")


@pytest.mark.parametrize(
    "kind,feedback",
    [
        ("number", "That is wrong. Give a different answer. Is 5 too large?"),
        ("number", "That is wrong: 2 of its letters are in their places. Give another."),
        ("choice", "That is wrong: too large."),
        ("number", "Solve 2 + 2. That is wrong: too large."),
        ("code", "That is wrong: too small."),
        ("number", ""),
    ],
)
def test_what_is_no_hint_of_this_kind_says_nothing(kind, feedback):
    assert spoken(kind, feedback) == ""


def test_hints_are_not_about_the_spelling():
    assert hint("number", "5", "5") == "" and hint("number", "x", "5") == ""
    assert spoken("number", "That is wrong: too large. Give a different answer. What is 1.5 + 2?") == "too large"
