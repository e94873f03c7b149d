"""The scanner: a reply's thought and action part, and the calls in the latter, as written.  Nothing is evaluated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from envs.errors import InvalidActionError

NAMES = (
    "click", "left_single", "left_click", "tap", "left_double", "double_click", "right_single", "right_click", "hover",
    "mouse_move", "long_press", "drag", "select", "hotkey", "press", "type", "scroll", "open_app", "wait", "press_home",
    "press_back", "answer", "finished", "call_user", "error_env",
)  # fmt: skip
"""Every name that may start a call."""

_BARE = ("wait", "press_home", "press_back", "finished", "call_user")
"""Actions that need no argument, understood without brackets too."""

_KNOWN = "|".join(sorted(NAMES, key=len, reverse=True))
_CALL_AHEAD = re.compile(rf"[\s`]*(?:(?:{_KNOWN})\s*[(（]|(?:{'|'.join(_BARE)})\s*`*\s*$)", re.IGNORECASE)
_CALL_LINE = re.compile(rf"^[ \t`]*(?:{_KNOWN})\s*[(（]", re.IGNORECASE | re.MULTILINE)


class Call(NamedTuple):
    """``name(key='value', ...)`` as written; positional arguments have an empty key.  ``end`` is the offset behind it."""

    name: str
    arguments: tuple[tuple[str, str], ...]
    end: int


# -- thought and action part ---------------------------------------------------------------------------------------------------

_TOKENS = re.compile(r"<\|[A-Za-z0-9_]+\|>")
_LABEL = r"[*_#\s]*(?:Action|动作|操作)[*_]*\s*[:：][*_]*"
_ACTION_LINE = re.compile(rf"^{_LABEL}", re.IGNORECASE | re.MULTILINE)
_ACTION_INLINE = re.compile(r"\bAction\s*[:：]", re.IGNORECASE)
_PREFIX = re.compile(r"^[*_#\s]*(?:Thought|Reflection|Action_Summary|思考)[*_]*\s*[:：][*_]*\s*", re.IGNORECASE | re.MULTILINE)


def split_reply(text: str) -> tuple[str, str]:
    """(thought, action part) of any text; never raises.  Without ``Action:`` the first line that starts a known call is taken."""
    text = _TOKENS.sub("", text).replace("\r\n", "\n").strip()
    start, end = _action_start(text)
    thought = _PREFIX.sub("", text[:start]).strip()
    return thought, text[end:].strip().strip("`").strip()


def _action_start(text: str) -> tuple[int, int]:
    """Offsets where the thought ends and where the action part begins."""
    labels = [*_ACTION_LINE.finditer(text), *_ACTION_INLINE.finditer(text)]
    for label in labels:  # a thought may talk of "Action:" itself: the label that a call follows is meant
        if _CALL_AHEAD.match(text, label.end()):
            return label.start(), label.end()
    bare = _CALL_LINE.search(text)
    if bare:
        return bare.start(), bare.start()
    return (labels[0].start(), labels[0].end()) if labels else (len(text), len(text))


# -- calls ---------------------------------------------------------------------------------------------------------------------

_QUOTES = {"'": "'", '"': '"', "“": "”", "‘": "’", "`": "`"}
_NAME = re.compile(r"[\s`;；]*([A-Za-z_][A-Za-z0-9_]*)\s*([(（]|(?=[`;\s]|$))")
_KEY = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*[=＝:]\s*")
_SEPARATOR = re.compile(r"\s*([,，]|[)）])")
_AFTER_VALUE = re.compile(
    r"\s*(?:[)）]\s*(?:$|[#;；`\n]|[A-Za-z_][A-Za-z0-9_]*\s*[(（:：])|[)）]\s*[^\S\n]*\n|[,，]\s*[A-Za-z_]\w*\s*[=＝])"
)
_AFTER_POSITIONAL = re.compile(_AFTER_VALUE.pattern + r"|\s*[,，]")
_COMMENT = re.compile(r"[^\S\n]*#[^\n]*")
_REPEATED_LABEL = re.compile(rf"\s*{_LABEL}", re.IGNORECASE)


def calls(text: str) -> Iterator[Call]:
    """The calls of an action part, in order; comments and repeated ``Action:`` labels between them are skipped, prose ends them.

    Raises:
        InvalidActionError: a call is cut off.
    """
    call = _read_call(text, 0)
    while call is not None:
        yield call
        offset = call.end
        for between in (_COMMENT, _REPEATED_LABEL):
            skipped = between.match(text, offset)
            offset = skipped.end() if skipped else offset
        call = _read_call(text, offset)


def _read_call(text: str, offset: int) -> Call | None:
    """The call that starts at ``offset``, None if none does."""
    head = _NAME.match(text, offset)
    if head is None or not (head[2] or head[1].lower() in _BARE):
        return None
    if not head[2]:
        return Call(head[1].lower(), (), head.end())
    arguments: list[tuple[str, str]] = []
    position = head.end()
    while True:
        closing = _SEPARATOR.match(text, position)
        if closing and closing[1] in ")）":
            return Call(head[1].lower(), tuple(arguments), closing.end())
        if closing:
            position = closing.end()
            continue
        key = _KEY.match(text, position)
        position = key.end() if key else position + len(text[position:]) - len(text[position:].lstrip())
        value, position = _read_value(text, position, _AFTER_VALUE if key else _AFTER_POSITIONAL)
        arguments.append((key[1].lower().replace("_", "") if key else "", value))


def _read_value(text: str, start: int, after: re.Pattern[str]) -> tuple[str, int]:
    """(value as written between its quotes, offset behind it)."""
    if start >= len(text):
        raise InvalidActionError("The action is cut off: a closing bracket is missing.")
    if text[start] not in _QUOTES:
        return _read_unquoted(text, start)
    for fence in ("'''", '"""'):
        end = text.find(fence, start + 3) if text.startswith(fence, start) else -1
        if end >= 0:
            return text[start + 3 : end], end + 3
    closing, position = _QUOTES[text[start]], start + 1
    while position < len(text):
        if text[position] == "\\":
            position += 2
            continue
        # A quote ends the value only where the call goes on or ends: type(content='it's') holds one that does not.
        if text[position] == closing and after.match(text, position + 1):
            return text[start + 1 : position], position + 1
        position += 1
    # Text after the call on the same line ("click(...) to open it"): the first closing quote before a bracket will do.
    loose = re.compile(re.escape(closing) + r"\s*[)）,，]").search(text, start + 1)
    if loose is None:
        raise InvalidActionError(f"The action is cut off: {shorten(text[start:])!r} has no closing quote.")
    return text[start + 1 : loose.start()], loose.start() + 1


def _read_unquoted(text: str, start: int) -> tuple[str, int]:
    depth = 0
    for position in range(start, len(text)):
        char = text[position]
        if char in "([（":
            depth += 1
        elif char in ")]）" and depth:
            depth -= 1
        elif char in ")）" or (char in ",，" and not depth):
            return text[start:position].strip(), position
    raise InvalidActionError("The action is cut off: a closing bracket is missing.")


def shorten(text: str, limit: int = 60) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
