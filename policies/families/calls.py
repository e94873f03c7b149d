"""The scanner of calls: ``name(key='value', ...)`` as models write them.  Nothing is evaluated, and the time is linear in the text.

Understood besides the protocol: full-width punctuation, unescaped quotes and line breaks inside a value, fences of three quotes,
code fences, bullets and comments around a call, ``name>point>x y``, and a closing bracket that is missing at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from envs.errors import InvalidActionError
from policies.families.reply import cut_off, shorten

MAX_ARGUMENTS = 16


class Call(NamedTuple):
    """``name(key='value', ...)`` as written; positional arguments have an empty key.  ``end`` is the offset behind it."""

    name: str
    arguments: tuple[tuple[str, str], ...]
    end: int


# Runs of blanks, names and digits are matched possessively (``*+``): a run that does not lead to a match is not tried again shorter.
_LABEL = r"[*_# \t]{0,20}+(?:Action|动作|操作)[*_ \t]{0,20}+[:：][*_]{0,4}+"
_QUOTES = {"'": "'", '"': '"', "“": "”", "‘": "’", "`": "`"}
_NAME = re.compile(r"[\s`;；,，]*+(?:(?:[-*•]|\d{1,2}+[.)])[ \t]++)?+([A-Za-z_][A-Za-z0-9_]{0,60}+)(?:\s*+([(（>])|(?=[`;\s]|$))")
_KEY = re.compile(r"\s*+([A-Za-z_][A-Za-z0-9_]{0,60}+)\s*+[=＝:]\s*+")
_BETWEEN = re.compile(r"(?:\s*+[,，])*+\s*+")
_AFTER_VALUE = re.compile(
    r"\s*+(?:[)）](?:[^\S\n]*+\n|\s*+(?:$|[#;；`]|(?:[,，]\s*+)?+[A-Za-z_][A-Za-z0-9_]{0,60}+\s*+[(（:：]))|[,，]\s*+[A-Za-z_]\w{0,60}+\s*+[=＝])"
)
_AFTER_POSITIONAL = re.compile(_AFTER_VALUE.pattern + r"|\s*+[,，]")
_COMMENT = re.compile(r"[^\S\n]*+#[^\n]*+")
_REPEATED_LABEL = re.compile(rf"\s*+{_LABEL}", re.IGNORECASE)
_STEPS = {quote: re.compile(rf"\\.|{re.escape(closing)}", re.DOTALL) for quote, closing in _QUOTES.items()}
_LOOSE = {quote: re.compile(re.escape(closing) + r"\s*+[)）,，]") for quote, closing in _QUOTES.items()}
_UNQUOTED = re.compile(r"[(\[（{)\]）},，]")
_CLOSED_POINT = re.compile(r"[\[(（<][^'\"]{0,120}[)\]）>]\s*$")
_TAGGED = re.compile(r"[^\S\n]*(?:<?/?[A-Za-z_]{1,20}>[^\S\n]*){0,4}([^\n]{1,60})")


class Scanner:
    """Reads the calls of one text.

    Args:
        text: The action part of a reply.
        bare: Names that are calls without brackets too.
        mend: Quotes and brackets may be missing at the end of the text.
    """

    def __init__(self, text: str, bare: Iterable[str] = (), *, mend: bool = True) -> None:
        self.text, self._bare, self._mend = text, frozenset(bare), mend
        # Quotes whose end was not found from some offset on: it is not found from a later one either.
        self._hopeless: set[tuple[str, bool]] = set()
        self._unfenced: set[str] = set()

    def calls(self) -> Iterator[Call]:
        """The calls in order; comments and repeated ``Action:`` labels between them are skipped, prose ends them.

        Raises:
            InvalidActionError: a call is cut off.
        """
        call = self._read(0)
        while call is not None:
            yield call
            offset = call.end
            for between in (_COMMENT, _REPEATED_LABEL):
                skipped = between.match(self.text, offset)
                offset = skipped.end() if skipped else offset
            call = self._read(offset)

    def _read(self, offset: int) -> Call | None:
        """The call that starts at ``offset``, None if none does."""
        head = _NAME.match(self.text, offset)
        if head is None or not (head[2] or head[1].lower() in self._bare):
            return None
        name = head[1].lower()
        if not head[2]:
            self._mended(head.end())
            return Call(name, (), head.end())
        if head[2] == ">":  # click>point>510 150
            tagged = _TAGGED.match(self.text, head.end())
            if tagged is None:
                return None
            if not tagged[1].rstrip().endswith(">"):
                self._mended(tagged.end())
            return Call(name, (("point", tagged[1].strip(" `")),), tagged.end())
        arguments: list[tuple[str, str]] = []
        position = head.end()
        while True:
            between = _BETWEEN.match(self.text, position)
            position = between.end() if between else position
            if self.text.startswith((")", "）"), position):
                return Call(name, tuple(arguments), position + 1)
            if arguments and not self.text[position : position + 200].strip(" \t\n\r`;"):  # the last bracket is missing
                self._mended(position)
                return Call(name, tuple(arguments), len(self.text))
            if len(arguments) == MAX_ARGUMENTS:
                raise InvalidActionError(f"{name} with more than {MAX_ARGUMENTS} arguments.")
            key = _KEY.match(self.text, position)
            position = key.end() if key else position
            value, position = self._value(position, keyed=key is not None)
            arguments.append((key[1].lower().replace("_", "") if key else "", value))

    def _mended(self, end: int) -> None:
        """Refuse a call that is only taken to end at ``end`` because the text does, where that is no reason."""
        if not self._mend and not self.text[end : end + 200].strip(" \t\n\r`;"):
            raise cut_off()

    def _value(self, start: int, *, keyed: bool) -> tuple[str, int]:
        """(value as written between its quotes, offset behind it)."""
        text = self.text
        if start >= len(text):
            raise InvalidActionError("The action is cut off: a closing bracket is missing.")
        quote = text[start]
        if quote not in _QUOTES:
            return self._unquoted(start)
        for fence in ("'''", '"""'):
            if text.startswith(fence, start) and fence not in self._unfenced:
                end = text.find(fence, start + 3)
                if end >= 0:
                    return text[start + 3 : end], end + 3
                self._unfenced.add(fence)
        # A quote ends the value only where the call goes on or ends: type(content='it's') holds one that does not.
        after = _AFTER_VALUE if keyed else _AFTER_POSITIONAL
        if (quote, keyed) not in self._hopeless:
            for step in _STEPS[quote].finditer(text, start + 1):
                if step[0][0] != "\\" and after.match(text, step.end()):
                    return text[start + 1 : step.start()], step.end()
            self._hopeless.add((quote, keyed))
        # Text after the call on the same line ("click(...) to open it"): the first closing quote before a bracket will do.
        loose = _LOOSE[quote].search(text, start + 1)
        if loose is not None:
            return text[start + 1 : loose.start()], loose.start() + 1
        return self._cut_off(start)

    def _cut_off(self, start: int) -> tuple[str, int]:
        """A value at the very end of the text whose bracket, or quote and bracket, are missing: taken where nothing else can be."""
        self._mended(len(self.text))
        rest = self.text[start + 1 :].rstrip(" \t\n\r`;")
        closing = _QUOTES[self.text[start]]
        if rest.endswith(closing) and not rest.endswith("\\" + closing) and rest.count(closing) == 1:
            return rest[: -len(closing)], len(self.text)
        if len(rest) <= 200 and _CLOSED_POINT.match(rest):
            return rest, len(self.text)
        raise InvalidActionError(f"The action is cut off: {shorten(self.text[start : start + 400])!r} has no closing quote.")

    def _unquoted(self, start: int) -> tuple[str, int]:
        depth = 0
        for mark in _UNQUOTED.finditer(self.text, start):
            char = mark[0]
            if char in "([（{":
                depth += 1
            elif char in ")]）}" and depth:
                depth -= 1
            elif char in ")）" or (char in ",，" and not depth):
                return self.text[start : mark.start()].strip(), mark.start()
        self._mended(len(self.text))
        rest = self.text[start : start + 400].strip()
        if depth == 0 and len(self.text) - start <= 200 and _CLOSED_POINT.match(rest):
            return rest, len(self.text)
        raise InvalidActionError("The action is cut off: a closing bracket is missing.")


# -- thought and action part ---------------------------------------------------------------------------------------------------

_TOKENS = re.compile(r"<\|[A-Za-z0-9_]{1,40}\|>")
_PREFIX = re.compile(
    r"^[*_# \t]{0,20}+(?:Thought|Reflection|Action_Summary|思考)[*_ \t]{0,20}+[:：][*_]{0,4}+\s*+", re.IGNORECASE | re.MULTILINE
)
_LABELS = (rf"^{_LABEL}", r"\bAction[ \t]{0,20}+[:：]")
"""``Action:`` at the start of a line, and anywhere."""
_FLAGS = re.IGNORECASE | re.MULTILINE


class Labels:
    """Where the thought of a reply ends and its action part begins, for a language of the calls ``names``."""

    def __init__(self, names: Iterable[str], bare: Iterable[str]) -> None:
        known = "|".join(sorted(names, key=len, reverse=True))
        # The first look at the word's shape is cheap; most labels of a long reply end there.
        ahead = (
            r"(?=[\s`]{0,200}+(?=[A-Za-z_]{1,60}+[\s`]{0,43}+(?:[(（>]|\Z))"
            rf"(?:(?:{known})\s{{0,20}}+[(（>]|(?:{'|'.join(bare)})\s{{0,20}}+`{{0,3}}+\s{{0,20}}+\Z))"
        )
        # A thought may talk of "Action:" itself: the first label that a call follows is meant.  Next best is a call that starts a
        # line, then a label that no call follows.  Each is one search: nothing is kept of the labels that it passes.
        self._starts = [
            *(re.compile(label + ahead, _FLAGS) for label in _LABELS),
            re.compile(rf"^(?=[ \t`]{{0,200}}+(?=[A-Za-z_]{{1,60}}+[ \t]{{0,20}}+[(（])(?:{known})[ \t]{{0,20}}+[(（])", _FLAGS),
            *(re.compile(label, _FLAGS) for label in _LABELS),
        ]

    def split(self, text: str) -> tuple[str, str]:
        """(thought, action part) of any text; never raises.  Without ``Action:``, the first line that starts a known call is taken."""
        text = _TOKENS.sub("", text).replace("\r\n", "\n").strip()
        thought_end = text.find("</think>") + len("</think>") if text.startswith("<think>") and "</think>" in text else 0
        found = next((match for pattern in self._starts if (match := pattern.search(text, thought_end))), None)
        start, end = found.span() if found else (len(text), len(text))
        thought = _PREFIX.sub("", text[:start].removeprefix("<think>").replace("</think>", "\n", 1)).strip()
        return thought, text[end:].strip().strip("`").strip()
