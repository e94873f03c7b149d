"""The one final answer of a reply, and normal forms in which answers are compared.

The rule behind all of it: a reply has one final answer or none.  What names several ("42 or 43", a list of candidates, a
right answer beside a wrong one) has not committed itself and counts as no answer, so that hedging never pays.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from fractions import Fraction

MAX_CHARACTERS = 200_000
"""Characters at the end of a reply that are looked at (the answer stands at the end)."""

MAX_BOXES = 50
"""The last ones of a reply are looked at."""

_THOUGHT_ENDS = ("</think>", "</thought>", "<|end_of_thought|>", "</reasoning>")
_THOUGHT_STARTS = ("<think>", "<thought>", "<|begin_of_thought|>", "<reasoning>")

_MARKER = re.compile(
    r"(?:\b(?:answers?|correct (?:option|choice))\b[ \t]{0,3}(?:to (?:the|this|your) \w{1,20} )?(?:\([^()\n]{0,40}\)[ \t]?)?"
    r"(?:is|are|would be|must be|should be|=|[*_]{0,2}:)|\bfinal answer\b|####)"
    r"(?:[ \t*_]{0,6}[:=]|[ \t]{0,3}(?:option|choice)\b)?[ \t*_]{0,6}",
    re.IGNORECASE,
)


FENCE = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
"""A block of code."""


def after_thought(reply: str) -> str | None:
    """What follows the thought of a thinking model; None while the thought has not ended."""
    text = reply[-MAX_CHARACTERS:]
    ends = [at + len(mark) for mark in _THOUGHT_ENDS if (at := text.rfind(mark)) >= 0]
    if ends:
        return text[max(ends) :]
    lowered = reply[:200].lower().lstrip()
    return None if lowered.startswith(_THOUGHT_STARTS) else text


def boxed(text: str) -> list[str]:
    r"""The contents of every ``\boxed{...}`` and ``\fbox{...}``, braces balanced, in order; one that never closes is left out."""
    found = []
    for match in list(re.finditer(r"\\(?:boxed|fbox)\s?\{", text))[-MAX_BOXES:]:
        depth, start = 1, match.end()
        for at in range(start, min(len(text), start + 4000)):
            depth += {"{": 1, "}": -1}.get(text[at], 0) if text[at - 1] != "\\" else 0
            if depth == 0:
                found.append(text[start:at].strip())
                break
    return found


def final_answer(reply: str) -> tuple[str, bool] | None:
    r"""(the answer's text, whether it was marked as one); None if there is none.

    Marked are the last ``\boxed{}`` and what follows the last "answer is", "Answer:" or "####"; of two, the later one counts.
    Different boxes in the last sentence that has any are no single answer.
    """
    text = after_thought(reply)
    if text is None or not text.strip():
        return None
    text = clean(text)
    markers = [m for m in _MARKER.finditer(text) if text[m.end() :].strip(" \t\n*_.:`$")]
    marker_at = markers[-1].end() if markers else -1
    boxes = boxed(text)
    if boxes:
        last_box = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
        if last_box >= marker_at - 1 or not markers:
            together = boxed(_last_paragraph_with_box(text))
            if len({_squeezed(b) for b in together}) > 1:
                return None
            return boxes[-1], True
        if "\\boxed" in text[marker_at:] or "\\fbox" in text[marker_at:]:
            return boxes[-1], True
    if markers:
        return first_line(text[marker_at:]), True
    return text.strip(), False


def _last_paragraph_with_box(text: str) -> str:
    lines = [line for line in text.split("\n") if "\\boxed" in line or "\\fbox" in line]
    return lines[-1] if lines else text


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def first_line(text: str) -> str:
    """The first line that says something."""
    return next((line.strip() for line in text.split("\n") if line.strip(" \t*_`$.:")), "")


def clean(text: str) -> str:
    """Spaces, signs and marks of typography as plain ones; markdown emphasis dropped."""
    text = unicodedata.normalize("NFC", text)
    for odd, plain in _PLAIN.items():
        text = text.replace(odd, plain)
    text = re.sub(r"[\u200b\u200c\u200d\u2060\ufeff]", "", text)
    return re.sub(r"(?<![\w*])(\*\*|__)(?=\S)([^*\n]{1,300}?)(?<=\S)\1(?!\w)", r"\2", text)


_PLAIN = {
    "\u2212": "-", "\u2013": "-", "\u2014": " - ", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2019": "'", "\u2018": "'",
    "\u201c": '"', "\u201d": '"', "\u00d7": r"\times ", "\u00f7": "/", "\u2044": "/", "\u221e": r"\infty ", "\u03c0": r"\pi ",
    "\u00bd": " 1/2", "\u00bc": " 1/4", "\u00be": " 3/4", "\u2153": " 1/3", "\u2154": " 2/3", "\u215b": " 1/8", "\r": "\n",
}  # fmt: skip

# ------------------------------------------------------------------------------------------------------------------- numbers

_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,60})(?:\.\d{1,60})?(?:[eE][-+]?\d{1,3}(?!\w))?(?:\s?/\s?\d{1,60}(?:\.\d{1,30})?)?|"
    r"(?<![\w.])[-+]?\.\d{1,60}"
)
_BETWEEN = re.compile(r"^[\s$]{0,3}(?:,|;|\||/|or|and|to|through|-|&|as well as|and/or|, or|, and)[\s$]{0,3}$", re.IGNORECASE)

_BELOW_TWENTY = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_UNITS = {name: value for value, name in enumerate(_BELOW_TWENTY)}
_TENS = {
    name: 10 * value
    for value, name in enumerate(("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), start=2)
}
_PARTS = {
    "half": 2,
    "halves": 2,
    "third": 3,
    "thirds": 3,
    "quarter": 4,
    "quarters": 4,
    "fourth": 4,
    "fourths": 4,
    "fifth": 5,
    "fifths": 5,
}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}


def words_number(text: str) -> Fraction | None:
    """The number that English words say ("minus twenty-one", "two hundred and five"); None if they are not one."""
    words = re.findall(r"[a-z]+", text.lower())
    if not words or re.search(r"[^a-zA-Z\s,.\-']", text.strip(" .!")) or len(words) > 12:
        return None
    if words[-1] in _PARTS and len(words) == 2:
        top = 1 if words[0] in ("a", "one") else _UNITS.get(words[0], 0)
        return Fraction(top, _PARTS[words[-1]]) if top else None
    negative = words[0] in ("minus", "negative")
    total = current = 0
    seen = ""
    for word in words[negative:]:
        if word in _UNITS and seen in ("", "tens", "hundred", "scale", "and"):
            if seen == "tens" and not 0 < _UNITS[word] < 10:
                return None
            current, seen = current + _UNITS[word], "units"
        elif word in _TENS and seen in ("", "hundred", "scale", "and"):
            current, seen = current + _TENS[word], "tens"
        elif word == "hundred" and 0 < current < 100 and seen in ("units", "tens"):
            current, seen = current * 100, "hundred"
        elif word in _SCALES and current and seen in ("units", "tens", "hundred"):
            total, current, seen = total + current * _SCALES[word], 0, "scale"
        elif word == "and" and seen in ("hundred", "scale"):
            seen = "and"
        else:
            return None
    if seen in ("", "and"):
        return None
    return Fraction(-(total + current) if negative else total + current)


def parse_number(text: str) -> Fraction | None:
    """The value of one written number: ``1,234``, ``-5.0``, ``3/4``, ``2 1/2``, ``12%``, ``1.5e3``, ``twenty-one``."""
    text = text.strip().rstrip(".")
    if len(text) > 200:
        return None
    percent = text.endswith("%")
    text = text.rstrip("%").strip()
    mixed = re.fullmatch(r"([-+]?\d{1,30})\s+(\d{1,30})\s?/\s?(\d{1,30})", text)
    try:
        if mixed:
            whole, over = Fraction(mixed[1]), Fraction(int(mixed[2]), int(mixed[3]))
            value = whole - over if mixed[1].startswith("-") else whole + over
        elif _NUMBER.fullmatch(text):
            top, _, bottom = text.replace(",", "").replace(" ", "").partition("/")
            value = Fraction(top) / Fraction(bottom) if bottom else Fraction(top)
        else:
            spoken = words_number(text)
            if spoken is None:
                return None
            value = spoken
    except (ValueError, ZeroDivisionError):
        return None
    return value / 100 if percent else value


def show_number(value: Fraction) -> str:
    """The normal form: an integer, or a reduced fraction."""
    return str(value)


_LATEX_FRACTION = re.compile(r"(-?)\s?\\[dtc]?frac\s?(?:\{\s?(-?\d{1,30})\s?\}\s?\{\s?(-?\d{1,30})\s?\}|(\d)\s?(\d))")


def unlatexed(text: str) -> str:
    """Plain numbers out of the LaTeX around them: delimiters, ``\\text{}``, spaces, thousands, simple fractions and powers of ten."""
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s?\{([^{}]{0,200})\}", r" \1 ", text)
    text = text.replace("\\$", "$").replace("{,}", ",").replace("\\%", "%").replace("\\,", " ").replace("\\!", "")
    text = re.sub(r"\\[()\[\];: ]|\\left|\\right|\\displaystyle|\^\s?\{?\\circ\}?|\\quad|~", " ", text)
    text = _LATEX_FRACTION.sub(lambda m: f" {m[1]}{m[2] or m[4]}/{m[3] or m[5]}", text)
    text = re.sub(r"(\d)\s?(?:\\times|\\cdot|\*|x)\s?10\s?\^\s?\{?\s?(-?\d{1,3})\s?\}?", r"\1e\2", text)
    return text.replace("$", " ").replace("`", " ").strip()


def single_number(text: str, *, marked: bool) -> Fraction | None:
    """The one number that a final answer says; None if it says none, or several that are not steps of one calculation.

    Args:
        text: The answer's text.
        marked: It was marked as the answer: then its first sentence says it; else the reply's last sentence does.
    """
    text = unlatexed(text)
    whole = whole_number(text)
    if whole is not None:
        return whole
    if not marked:
        found = _NUMBER.findall(text)
        if len(set(found)) > 1 and not re.search(r"[A-Za-z=]", text):
            return None  # a mere list of numbers
        text = last_sentence_with_number(text)
    else:
        text = first_sentence(text)
    value = _of_sentence(text)
    return words_number(_bare(text)) if value is None and not _NUMBER.search(text) else value


def whole_number(text: str) -> Fraction | None:
    """The value of a text that is one number and nothing else but its unit."""
    bare = _bare(text)
    if re.fullmatch(r"[-+]?\d{1,3}(?: \d{3})+(?:\.\d{1,30})?", bare):  # thousands apart
        bare = bare.replace(" ", "")
    first = parse_number(text)
    return parse_number(bare) if first is None else first


def _of_sentence(text: str) -> Fraction | None:
    text = _EXPLAINED.sub("", text)
    text = text.rsplit("=", 1)[1] if "=" in text and _NUMBER.search(text.rsplit("=", 1)[1]) else text
    spans = list(_NUMBER.finditer(text))
    if not spans or _HEDGE.search(text):
        return None
    last = spans[-1]
    if len(spans) > 1:
        before = spans[-2]
        if text[before.end() : last.start()].isspace() and "/" in last[0]:  # a mixed number: "2 1/2"
            return parse_number(text[before.start() : last.end()]) if len(spans) == 2 else None
        if _CHOOSING.search(text) or any(_between(text, a, b) for a, b in itertools.pairwise(spans)):
            return None
    if _DENIED.search(text[: last.start()]) or _OPERATOR.search(text[: last.start()]):
        return None
    percent = text[last.end() :].lstrip().startswith("%")
    return parse_number(last[0] + "%" if percent else last[0])


_EXPLAINED = re.compile(r"(?<=[\w%])\s?\((?![^()]*\b(?:or|and|maybe)\b)[^()]{1,80}\)\s*$", re.IGNORECASE)
_OPERATOR = re.compile(r"[A-Za-z)\d]\s?(?:[+*/^]|\\times|\\cdot)\s?$|\b[A-Za-z]\s?-\s?$")
_HEDGE = re.compile(r"\b(?:or (?:more|less|fewer)|at (?:least|most)|(?:more|less|fewer|greater) than)\b", re.IGNORECASE)
_CHOOSING = re.compile(r"\b(?:or|either|neither|maybe|perhaps|possibly|between)\b", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:not|isn't|never)\s{1,3}(?:\w{1,12}\s{1,3}){0,2}$", re.IGNORECASE)


def _between(text: str, a: re.Match[str], b: re.Match[str]) -> bool:
    """Whether two numbers stand beside each other as candidates do, and are not the same."""
    return bool(_BETWEEN.match(text[a.end() : b.start()])) and parse_number(a[0]) != parse_number(b[0])


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends one (not a decimal point), or the first line's end."""
    text = first_line(text)
    match = re.search(r"[.!?](?=\s|$)", text)
    return text[: match.start()] if match else text


def last_sentence_with_number(text: str) -> str:
    """The last sentence or line in which a number stands."""
    parts = [part for part in re.split(r"(?<=[.!?])\s+|\n", text) if _NUMBER.search(part)]
    return parts[-1] if parts else text


def _bare(text: str) -> str:
    """Without currency, sentence marks, and a unit after the number."""
    text = text.strip().strip("*_\"'").rstrip(".!").strip()
    text = re.sub(r"^(?:[a-zA-Z]\w{0,3}\s?(?:=|\\approx|:)\s?|=\s?|\\approx\s?|approximately\s|about\s)", "", text)
    text = re.sub(r"^[$€£]\s?|^-[$€£]\s?(?=\d)", lambda m: "-" if "-" in m[0] else "", text)
    return _UNIT.sub("", text).strip() if _NUMBER.match(text) else text


_UNIT = re.compile(
    r"(?<=[\d%])\s?(?!(?i:or|and|to|but|not|through|if|minus|plus|times|is)\b)[a-zA-Z°][a-zA-Z°²³/]{0,14}(?:\^?[23])?"
    r"(?:[ \-/](?!(?i:or|and|but|not|if|is)\b)[a-zA-Z°²³/]{1,14}){0,3}$"
)


def answer_key(reply: str, *, capitals: bool = False) -> str:
    """Equal for replies whose final answers are the same number or the same words; the whole reply's where it has none.

    ``capitals``: they count, as in mathematics.
    """
    found = final_answer(reply)
    value = None if found is None else single_number(found[0], marked=found[1])
    if value is not None:
        return show_number(value)
    text = " ".join(reply.split()) if found is None else " ".join(found[0].split()).strip(" .`*\"'$")
    return text if capitals else text.casefold()
