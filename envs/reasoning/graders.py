"""Is this reply right?  One verdict per reply, by the item's kind; nothing in a reply is ever executed here.

A verdict has the answer in its normal form (equal answers have equal forms: that is how a repeated answer is recognised) and what
a user could honestly say of a wrong one without giving the right one away.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from envs.answer_forms import (
    LIST_LEAD,
    MAX_ANSWER,
    YES,
    chosen_letter,
    closing,
    closing_or_all,
    members,
    options_of,
    says_yes,
    without_lead,
    word_form,
)
from envs.answer_hints import hint, side
from envs.answers import (
    clean,
    final_answer,
    first_line,
    first_sentence,
    parse_number,
    show_number,
    single_number,
    unlatexed,
    whole_number,
)
from envs.reasoning import mathematics
from envs.reasoning.items import Item

NO_ANSWER = "I cannot find one final answer in that"


@dataclass(frozen=True)
class Verdict:
    """What a grader found.

    Attributes:
        score: 1.0 for a right answer, else 0.0.
        answer: The final answer in its normal form; None where the reply has none.
        hint: What is wrong with it, without the right answer; "" where nothing honest can be said.
    """

    score: float
    answer: str | None
    hint: str = ""


def grade(item: Item, reply: str) -> Verdict:
    """The verdict on a reply to a question of any kind but ``code`` (see :mod:`envs.reasoning.code`).

    Raises:
        InfrastructureError: the process that does the mathematics is unavailable.
        SetupError: ``math-verify`` is not installed.
    """
    found = final_answer(reply)
    if found is None or len(found[0]) > MAX_ANSWER:
        return Verdict(0.0, None, NO_ANSWER)
    return GRADERS[item.kind](item, *found)


def _number(item: Item, text: str, marked: bool) -> Verdict:
    right = parse_number(unlatexed(clean(item.answer)))
    value = single_number(text, marked=marked)
    if right is None:  # the reference is an expression
        return _math(item, text, marked)
    if value is None:
        if marked and re.search(r"\\(?:sqrt|frac|pi|log|binom|cdot|times)|\^|!", text):
            return _math(item, text, marked)
        return Verdict(0.0, None, NO_ANSWER)
    if value == right:
        return Verdict(1.0, show_number(value))
    return Verdict(0.0, show_number(value), side(value, right))


def _math(item: Item, text: str, marked: bool) -> Verdict:
    """An expression, by ``math-verify``; numbers that are plain are compared here, exactly as it does."""
    answer = text if marked else closing(text)
    right, value = parse_number(unlatexed(clean(item.answer))), single_number(answer, marked=marked)
    if right is not None and value is not None:
        if value == right:
            return Verdict(1.0, show_number(value))
        if not re.search(r"[\\^=√]|[a-zA-Z]\(", answer):
            return Verdict(0.0, show_number(value), side(value, right))
    if right is None and (said := whole_number(unlatexed(answer))) is not None:
        answer = show_number(said)  # in words, or in a form that the package does not read
    if _several(answer) and not _several(item.answer):
        return Verdict(0.0, None, NO_ANSWER)
    form, equal = mathematics.compare(item.answer, answer)
    if form is None:
        return Verdict(0.0, None, NO_ANSWER)
    return Verdict(float(equal), form)


def _several(text: str) -> bool:
    """Whether an expression offers alternatives in words."""
    return bool(re.search(r"(?:\\text\s?\{\s*|\b)(?:or|either|maybe|perhaps)\b", text, re.IGNORECASE))


def _choice(item: Item, text: str, marked: bool) -> Verdict:
    letter = chosen_letter(text, marked, item.choices)
    if letter is None:
        return Verdict(0.0, None, NO_ANSWER)
    if letter not in options_of(item.choices):
        return Verdict(0.0, letter, f"{letter} is not one of the options")
    right = letter == item.answer.strip().upper()
    return Verdict(float(right), letter, "" if right else f"{letter} is not right")


def _bool(item: Item, text: str, marked: bool) -> Verdict:
    value = says_yes(text, marked)
    if value is None:
        return Verdict(0.0, None, NO_ANSWER)
    return Verdict(float(value == YES.get(word_form(item.answer))), "yes" if value else "no")


def _word(item: Item, text: str, marked: bool) -> Verdict:
    line = first_line(unlatexed(text)) if marked else closing_or_all(unlatexed(text))
    right = word_form(item.answer)
    said = word_form(line)
    if said != right:
        sentence = word_form(first_sentence(line) if "." in line and not re.search(r"\.", item.answer) else line)
        said = sentence if sentence == right else word_form(without_lead(sentence, right))
    if not said:
        return Verdict(0.0, None, NO_ANSWER)
    if said == right:
        return Verdict(1.0, said)
    return Verdict(0.0, said, hint("word", said, right))


def _list(item: Item, text: str, marked: bool) -> Verdict:
    right = members(item.answer)
    line = first_line(unlatexed(text)) if marked else closing_or_all(unlatexed(text))
    said = members(line)
    if said != right and (lead := LIST_LEAD.match(line)):
        said = members(line[lead.end() :])
    if not said:
        return Verdict(0.0, None, NO_ANSWER)
    form = ", ".join(said)
    if said == right:
        return Verdict(1.0, form)
    return Verdict(0.0, form, hint("list", form, ", ".join(right)))


GRADERS: dict[str, Callable[[Item, str, bool], Verdict]] = {
    "math": _math, "number": _number, "word": _word, "list": _list, "bool": _bool, "choice": _choice,
}  # fmt: skip
