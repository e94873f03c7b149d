"""Is this reply right?  One verdict per reply, by the item's kind; nothing in a reply is ever executed here.

A verdict has the answer in its normal form (equal answers have equal forms: that is how a repeated answer is recognised) and what
a user could honestly say of a wrong one without giving the right one away.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass

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
from envs.reasoning.items import LETTERS, Item

MAX_ANSWER = 2000
"""Characters of a final answer; a longer text is not an answer to any of these questions."""

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
    return Verdict(0.0, show_number(value), "too large" if value > right else "too small")


def _math(item: Item, text: str, marked: bool) -> Verdict:
    """An expression, by ``math-verify``; numbers that are plain are compared here, exactly as it does."""
    answer = text if marked else _closing(text)
    right, value = parse_number(unlatexed(clean(item.answer))), single_number(answer, marked=marked)
    if right is not None and value is not None:
        if value == right:
            return Verdict(1.0, show_number(value))
        if not re.search(r"[\\^=√]|[a-zA-Z]\(", answer):
            return Verdict(0.0, show_number(value), "too large" if value > right else "too small")
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


def _closing(text: str) -> str:
    """The last line of an unmarked reply that says something."""
    return first_line("\n".join(reversed(text.split("\n"))))


def _choice(item: Item, text: str, marked: bool) -> Verdict:
    letters = LETTERS[: len(item.choices)] if item.choices else LETTERS[:10]
    plain = unlatexed(text)
    options = {_word_form(choice): letter for letter, choice in zip(letters, item.choices, strict=False)}
    said = plain if marked else plain.strip()
    by_text = options.get(_word_form(said)) or options.get(_word_form(first_sentence(said)))
    chosen = {by_text} if by_text else _letters(said if marked else _closing_or_all(said), letters)
    if len(chosen) != 1:
        return Verdict(0.0, None, NO_ANSWER)
    letter = chosen.pop()
    if letter not in letters:
        return Verdict(0.0, letter, f"{letter} is not one of the options")
    right = letter == item.answer.strip().upper()
    return Verdict(float(right), letter, "" if right else f"{letter} is not right")


def _closing_or_all(text: str) -> str:
    """A short reply as it is; of a long one the last line."""
    return text if len(text) < 200 and "\n" not in text.strip() else _closing(text)


def _letters(text: str, letters: str) -> set[str]:
    """The options that a text names: a capital letter that stands alone and is not an English word there."""
    text = first_line(text)
    if re.search(r"\bnot\s{1,3}(?:option\s)?\(?[A-Z]\b", text):
        return set()
    named = {m[1] for m in re.finditer(r"(?<![\w'])\(?([A-Z])(?![\w'])\)?(?!\s+(?!(?:or|and)\b)[a-z])", text)}
    head = re.match(r"\W{0,3}([A-Za-z])(?:[).:,\]}]|\s*$|\s+-)", text)
    if head:
        named.add(head[1].upper())
    elif re.fullmatch(r"\W{0,3}[A-Z]\s+[a-z].{0,300}", text, re.DOTALL) and not re.match(r"\W{0,3}[AI]\s", text):
        named.add(text.strip(string.punctuation + " ")[0])
    known = {letter for letter in named if letter in letters}
    return known or named


_YES = {"yes": True, "true": True, "no": False, "false": False, "correct": True, "incorrect": False}


def _bool(item: Item, text: str, marked: bool) -> Verdict:
    right = _YES.get(_word_form(item.answer))
    line = first_line(unlatexed(text)) if marked else _closing_or_all(unlatexed(text))
    said = re.findall(r"\b(yes|no|true|false)\b", line, re.IGNORECASE)
    head = re.match(
        r"\W{0,3}(yes|no|true|false)\b(?!\s{0,2}(?:/|or\b|and\b|,\s?(?:or|and)\b|\bnot\b))(?=\W|$)", line, re.IGNORECASE
    )
    values = {_YES[head[1].lower()]} if head and not _offers_both(line) else {_YES[word.lower()] for word in said}
    if len(values) != 1:
        return Verdict(0.0, None, NO_ANSWER)
    value = values.pop()
    return Verdict(float(value == right), "yes" if value else "no")


def _offers_both(line: str) -> bool:
    return bool(
        re.search(
            r"\b(?:yes|true)\b\W{0,3}(?:or|/|and)?\W{0,3}\b(?:no|false)\b|\b(?:no|false)\b\W{0,3}(?:or|/|and)\W{0,3}\b(?:yes|true)\b",
            line,
            re.IGNORECASE,
        )
    )


def _word_form(text: str) -> str:
    """Case, quotes, sentence marks and inner spaces do not count."""
    return re.sub(r"\s+", " ", text).strip(string.punctuation.replace("(", "").replace(")", "") + " ").casefold()


_LEAD = re.compile(
    r"^.{0,200}?(?:\bis(?: called| named)?|\bwas|\bwould be|\bwill be|\bbe|->|=|:)\s{1,3}(?:an?\s|the\s)?(?=[\"'\w(\[-])",
    re.IGNORECASE | re.DOTALL,
)


def _word(item: Item, text: str, marked: bool) -> Verdict:
    line = first_line(unlatexed(text)) if marked else _closing_or_all(unlatexed(text))
    right = _word_form(item.answer)
    said = _word_form(line)
    if said != right:
        sentence = _word_form(first_sentence(line) if "." in line and not re.search(r"\.", item.answer) else line)
        said = sentence if sentence == right else _word_form(_without_lead(sentence, right))
    if not said:
        return Verdict(0.0, None, NO_ANSWER)
    if said == right:
        return Verdict(1.0, said)
    return Verdict(0.0, said, _letters_hint(said, right))


def _without_lead(sentence: str, right: str) -> str:
    """The sentence after its last "is", ":" or "->", unless the right answer itself has one of them."""
    match = None if _LEAD.match(right) else _LEAD.match(sentence)
    while match and (further := _LEAD.match(sentence[match.end() :])):
        sentence = sentence[match.end() :]
        match = further
    return sentence[match.end() :] if match else sentence


def _letters_hint(said: str, right: str) -> str:
    if " " in said or " " in right or not said.isalpha() or not right.isalpha():
        return ""
    if len(said) != len(right):
        return f"that has {len(said)} letters, and the answer another number of them"
    return f"{sum(a == b for a, b in zip(said, right, strict=True))} of its letters are in their places"


def _members(text: str) -> list[str]:
    text = text.strip().strip("[](){}")
    parts = re.split(r"\s*[,;]\s*|\s*->\s*", text) if re.search(r"[,;]|->", text) else text.split()
    found = [part.strip(string.whitespace + "'\"`.*") for part in parts]
    return [show_number(value) if (value := parse_number(part)) is not None else part.casefold() for part in found if part]


def _list(item: Item, text: str, marked: bool) -> Verdict:
    right = _members(item.answer)
    line = first_line(unlatexed(text)) if marked else _closing_or_all(unlatexed(text))
    said = _members(line)
    if said != right and (lead := re.match(r"^[^\[,]{0,200}?(?:\bis|\bare|:|=)\s{1,3}", line)):
        said = _members(line[lead.end() :])
    if not said:
        return Verdict(0.0, None, NO_ANSWER)
    form = ", ".join(said)
    if said == right:
        return Verdict(1.0, form)
    if len(said) != len(right):
        return Verdict(0.0, form, f"that has {len(said)} members, and the answer another number of them")
    return Verdict(0.0, form, f"{sum(a == b for a, b in zip(said, right, strict=True))} of its members are in their places")


GRADERS: dict[str, Callable[[Item, str, bool], Verdict]] = {
    "math": _math, "number": _number, "word": _word, "list": _list, "bool": _bool, "choice": _choice,
}  # fmt: skip
