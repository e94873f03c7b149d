"""The text of tool calls: where they stand in a reply, and the arguments of each.  Nothing is evaluated; the time is linear in the text.

JSON between ``<tool_call>`` tags is the protocol.  Read besides it: tags that are missing, a call that lacks its last brackets,
Python's quotes for JSON's (``true`` and ``null`` among them), arguments that are a JSON text, several calls between two tags, a call
wrapped in ``function`` or named by its action, and Qwen3.5's own ``<function=...><parameter=...>``.  What is drafted before
``</think>`` is a thought, and no call.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

from envs.errors import InvalidActionError
from policies.families.reply import MAX_ACTIONS, TAGS, cut_off, shorten
from policies.families.syntax import literal, syntax_tree, with_json_names

OPEN, CLOSE = "<tool_call>", "</tool_call>"
MAX_CALL = 20_000
"""Characters of one call."""
MAX_LITERAL = 4_000
"""Characters of a call that is read as a Python literal if it is not JSON."""
MAX_PARAMETERS = 32

_CALLED = re.compile(r"<tool_call>(?=\s{0,20}+(?:```[a-z]{0,10}+\s{0,20}+)?+(?:[{\[]|<function=))")
_BARE = re.compile(r"\{\s{0,9}[\"'](?:name|action|arguments|function)[\"']\s{0,9}:|<function=")
_NEXT = re.compile(r"[\s,;]*+(?=\{)")
_FUNCTION = re.compile(r"<function=([^<>\n]{1,60})>")
_TEXTS = ("text", "content", "value", "answer", "url", "query", "fact", "question")
_DECODER = json.JSONDecoder(strict=False)


def split(text: str) -> tuple[str, str]:
    """(what stands before the first call, the calls as written); never raises."""
    thought = max(text.rfind("</think>"), text.rfind("</thinking>"), 0)
    start = _start(text, thought)
    if thought and start == len(text) and not text.lstrip().startswith("<think"):  # the tag stands in a call's text
        start = _start(text, 0)
    end = text.rfind(CLOSE)
    called = text[start : end + len(CLOSE)] if end > start else text[start:]
    return TAGS.sub("", text[:start]).strip(), TAGS.sub("", called).strip()


def _start(text: str, after: int) -> int:
    """Where the first call behind an offset begins; the end of the text, if none does."""
    found = _CALLED.search(text, after)
    start = found.start() if found else text.find(OPEN, after)
    if start >= 0:
        return start
    bare = _BARE.search(text, after)
    return bare.start() if bare else len(text)


def calls_in(called: str, *, mend: bool = True) -> list[Mapping[str, Any]]:
    """The arguments of each call, in order; of more calls than a reply may have, one too many.

    Args:
        called: From :func:`split`.
        mend: A call may lack its last brackets.

    Raises:
        InvalidActionError: one is not a call.
    """
    found: list[Mapping[str, Any]] = []
    for block in _blocks(called):
        found.extend(arguments_of(block, mend=mend))
        if len(found) > MAX_ACTIONS:
            break
    return found


def _blocks(called: str) -> list[str]:
    """The text of each call, at most one more than may be done."""
    if OPEN not in called:
        return [called[: MAX_CALL + 1]] if called else []
    pieces = [piece.split(CLOSE, 1)[0] for piece in called.split(OPEN, MAX_ACTIONS + 1)[1:] if piece.strip()]
    return [piece for piece in pieces if "{" in piece or "<function=" in piece] or pieces


def arguments_of(block: str, *, mend: bool = True) -> list[Mapping[str, Any]]:
    """The arguments of the calls that stand between two tags: mostly one; to ``mend``, of one that lacks its last brackets too.

    Raises:
        InvalidActionError: there is no call.
    """
    start, tagged = block.find("{"), _FUNCTION.search(block)
    if len(block) <= MAX_CALL and tagged and (start < 0 or tagged.start() < start):
        if not mend and "</function>" not in block:
            raise cut_off()
        return [_named(tagged[1].strip(), _parameters(block[tagged.end() :]))]
    if start < 0 or len(block) > MAX_CALL:
        raise InvalidActionError(f"{shorten(block)!r} is no call: a JSON object is expected.")
    return [_arguments(call) for call in _objects(block[start:].strip(), mend=mend)]


def _arguments(call: Mapping[str, Any]) -> Mapping[str, Any]:
    wrapped = call.get("function")
    call = wrapped if isinstance(wrapped, Mapping) else call
    arguments = call.get("arguments", call.get("parameters", call if "action" in call else None))
    if isinstance(arguments, str):
        arguments = _objects(arguments.strip()[:MAX_CALL])[0]
    if not isinstance(arguments, Mapping):
        raise InvalidActionError("The call has no arguments.")
    return _named(call.get("name"), arguments)


def _named(name: Any, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """``{"name": "left_click", "arguments": {"coordinate": ...}}``: the tool's name is the action, where nothing else says it."""
    if isinstance(name, str) and not name.endswith("_use") and not {"action", "action_type"} & arguments.keys():
        return {**arguments, "action": name}
    return arguments


def _parameters(text: str) -> dict[str, Any]:
    """``<parameter=name>value</parameter>``, again and again."""
    found: dict[str, Any] = {}
    for piece in text.split("</function>", 1)[0].split("<parameter=", MAX_PARAMETERS + 1)[1 : MAX_PARAMETERS + 1]:
        name, _, value = piece.partition(">")
        value = value.rpartition("</parameter>")[0] or value
        value = value.removeprefix("\n").removesuffix("\n")
        found[name.strip()[:60]] = value if name.strip() in _TEXTS else _value(value.strip())
    return found


def _value(text: str) -> Any:
    if text.startswith(("[", "{")):
        with contextlib.suppress(ValueError, RecursionError):
            return _DECODER.decode(text)
    return text


def _objects(text: str, *, mend: bool = True) -> list[Mapping[str, Any]]:
    """The objects that ``text`` begins with; to ``mend``, those that lack their last brackets too.

    Raises:
        InvalidActionError: it begins with none.
    """
    for brackets in ("", "}", "}}") if mend else ("",):
        candidate = text.rstrip("`\n ") + brackets if brackets else text
        first, end = _decoded(candidate, 0)
        if first is None:
            continue
        found = [first]
        while len(found) <= MAX_ACTIONS and (following := _NEXT.match(candidate, end)):
            another, end = _decoded(candidate, following.end())
            if another is None:
                break
            found.append(another)
        return found
    if len(text) <= MAX_LITERAL:
        with contextlib.suppress(InvalidActionError):
            value = literal(with_json_names(syntax_tree(text.strip("`\n "), "eval")))
            if isinstance(value, Mapping):
                return [value]
    raise InvalidActionError(f"{shorten(text)!r} is no JSON object.") if mend else cut_off()


def _decoded(text: str, start: int) -> tuple[Mapping[str, Any] | None, int]:
    """(the object that begins at ``start``, or None, where it ends)."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, start
    return (value if isinstance(value, Mapping) else None), end
