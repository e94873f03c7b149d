"""Forms of final answers by the kind of their question: what a grader reads, and what tells a policy's own answers apart.

Nothing here knows a right answer.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from envs.answers import (
    FENCE,
    after_thought,
    answer_key,
    final_answer,
    first_line,
    first_sentence,
    parse_number,
    show_number,
    single_number,
    unlatexed,
)

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Of the options of a choice."""

MAX_ANSWER = 2000
"""Characters of a final answer; a longer text is not an answer to any of these questions."""


def told_apart(kind: str, reply: str, choices: Sequence[str] = ()) -> str | None:
    """Equal only for replies that get one verdict, whatever the right answer is; None if a reply has no answer.

    What a policy may use to tell its own answers apart.  Finer than :func:`normal_form` where the grader reads an answer in more than
    one way: of words and lists as they are ("St. Louis", "force = mass"), of mathematics with capitals, of code the program.
    """
    found = final_answer(reply)
    if kind == "code":
        text = after_thought(reply)
        blocks = [block for block in FENCE.findall(text or "") if block.strip()]
        program = "\n".join(line.rstrip() for line in ("\n".join(blocks) if blocks else text or "").split("\n")).strip("\n")
        return program if program.strip() else None
    if kind not in ("word", "list", "math"):
        return normal_form(kind, reply, choices)
    if found is None or len(found[0]) > MAX_ANSWER:
        return None
    text, marked = found
    if kind == "math":
        return answer_key(reply, capitals=True) or None
    line = first_line(unlatexed(text)) if marked else closing_or_all(unlatexed(text))
    return (word_form(line) if kind == "word" else ", ".join(members(line))) or None


def normal_form(kind: str, reply: str, choices: Sequence[str] = ()) -> str | None:
    """The answer of a reply as the grader of ``kind`` reads it where the right answer is a plain one; None if it has none.

    What hints are about (:mod:`envs.answer_hints`).  The right answer is not known here: a grader lets more of an answer stand where the
    right one has it, so that two answers of one form may get two verdicts (:func:`told_apart`).  Of a kind that is not one of ours,
    numbers and words as they are.
    """
    found = final_answer(reply)
    if found is None or (len(found[0]) > MAX_ANSWER and kind != "code"):
        return None
    text, marked = found
    line = first_line(unlatexed(text)) if marked else closing_or_all(unlatexed(text))
    if kind == "number":
        value = single_number(text, marked=marked)
        return None if value is None else show_number(value)
    if kind == "choice":
        return chosen_letter(text, marked, choices)
    if kind == "bool":
        said = says_yes(text, marked)
        return None if said is None else "yes" if said else "no"
    if kind == "word":
        return word_form(without_lead(word_form(first_sentence(line) if "." in line else line), "")) or None
    if kind == "list":
        lead = LIST_LEAD.match(line)
        return ", ".join(members(line[lead.end() :] if lead else line)) or None
    return answer_key(reply) or None


def closing(text: str) -> str:
    """The last line of an unmarked reply that says something."""
    return first_line("\n".join(reversed(text.split("\n"))))


def options_of(choices: Sequence[str]) -> str:
    return LETTERS[: len(choices)] if choices else LETTERS[:10]


def chosen_letter(text: str, marked: bool, choices: Sequence[str]) -> str | None:
    """The one letter that an answer names, by itself or by the option's text."""
    letters, plain = options_of(choices), unlatexed(text)
    options = {word_form(choice): letter for letter, choice in zip(letters, choices, strict=False)}
    said = plain if marked else plain.strip()
    by_text = options.get(word_form(said)) or options.get(word_form(first_sentence(said)))
    chosen = {by_text} if by_text else _letters(said if marked else closing_or_all(said), letters)
    return chosen.pop() if len(chosen) == 1 else None


def closing_or_all(text: str) -> str:
    """A short reply as it is; of a long one the last line."""
    return text if len(text) < 200 and "\n" not in text.strip() else closing(text)


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


YES = {"yes": True, "true": True, "no": False, "false": False, "correct": True, "incorrect": False}


def says_yes(text: str, marked: bool) -> bool | None:
    """Whether an answer says yes; None if it says neither or both."""
    line = first_line(unlatexed(text)) if marked else closing_or_all(unlatexed(text))
    said = re.findall(r"\b(yes|no|true|false)\b", line, re.IGNORECASE)
    head = re.match(
        r"\W{0,3}(yes|no|true|false)\b(?!\s{0,2}(?:/|or\b|and\b|,\s?(?:or|and)\b|\bnot\b))(?=\W|$)", line, re.IGNORECASE
    )
    values = {YES[head[1].lower()]} if head and not _offers_both(line) else {YES[word.lower()] for word in said}
    return values.pop() if len(values) == 1 else None


def _offers_both(line: str) -> bool:
    return bool(
        re.search(
            r"\b(?:yes|true)\b\W{0,3}(?:or|/|and)?\W{0,3}\b(?:no|false)\b|\b(?:no|false)\b\W{0,3}(?:or|/|and)\W{0,3}\b(?:yes|true)\b",
            line,
            re.IGNORECASE,
        )
    )


def word_form(text: str) -> str:
    """Case, quotes, sentence marks and inner spaces do not count."""
    return re.sub(r"\s+", " ", text).strip(string.punctuation.replace("(", "").replace(")", "") + " ").casefold()


_LEAD = re.compile(
    r"^.{0,200}?(?:\bis(?: called| named)?|\bwas|\bwould be|\bwill be|\bbe|->|=|:)\s{1,3}(?:an?\s|the\s)?(?=[\"'\w(\[-])",
    re.IGNORECASE | re.DOTALL,
)


def without_lead(sentence: str, right: str) -> str:
    """The sentence after its last "is", ":" or "->", unless the right answer itself has one of them."""
    match = None if _LEAD.match(right) else _LEAD.match(sentence)
    while match and (further := _LEAD.match(sentence[match.end() :])):
        sentence = sentence[match.end() :]
        match = further
    return sentence[match.end() :] if match else sentence


def members(text: str) -> list[str]:
    text = text.strip().strip("[](){}")
    parts = re.split(r"\s*[,;]\s*|\s*->\s*", text) if re.search(r"[,;]|->", text) else text.split()
    found = [part.strip(string.whitespace + "'\"`.*") for part in parts]
    return [show_number(value) if (value := parse_number(part)) is not None else part.casefold() for part in found if part]


LIST_LEAD = re.compile(r"^[^\[,]{0,200}?(?:\bis|\bare|:|=)\s{1,3}")
