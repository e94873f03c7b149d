"""Is a value from a command line or a file of the type that an option has?  Nothing is converted: "false" is a text, not a switch."""

from __future__ import annotations

import functools
import json
import operator
import types
import typing
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

PLAIN = (str, int, float, bool, type(None))
NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def wrong_type(value: Any, kind: Any) -> str:
    """What the value should be, in words; "" if it is that, or if ``kind`` is not made of plain data (then nothing is known here)."""
    plain = list(dict.fromkeys(_plain(kind)))
    if not plain:
        return ""
    try:  # as JSON, which has lists for tuples and texts for paths
        whole: Any = functools.reduce(operator.or_, plain)
        TypeAdapter(whole).validate_json(json.dumps(value, allow_nan=False, default=str), strict=True)
    except (ValidationError, ValueError, TypeError, RecursionError):
        return " or ".join(
            NAMES.get(one, "a list" if typing.get_origin(one) in (tuple, list) else "names with values") for one in plain
        )
    return ""


def _plain(kind: Any) -> Iterator[Any]:
    """The plain types among those that a value may have; of a choice of words, that of the words."""
    origin = typing.get_origin(kind)
    if isinstance(kind, types.UnionType) or origin is typing.Union:
        for one in typing.get_args(kind):
            yield from _plain(one)
    elif origin is Literal:
        yield from (type(word) for word in typing.get_args(kind))
    elif origin is typing.Annotated:
        yield from _plain(typing.get_args(kind)[0])
    elif isinstance(kind, type) and issubclass(kind, PurePath):
        yield str
    elif kind in PLAIN or origin in (tuple, list, dict):
        yield kind
