"""Settings as plain data: what a file, a ``--set`` or another run may bring before anything looks at what it means."""

from __future__ import annotations

import datetime
import json
import math
import os
import re
import select
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from envs.errors import UsageError

DEEPEST = 20
"""Levels of nesting."""
MOST = 100_000
"""Values in one layer of settings; references of YAML (``&a``, ``*a``) are followed and counted."""
LARGEST = 2**53
"""No number is as large: up to here a float has every whole number."""
LARGEST_FILE = 4 * 2**20
"""Bytes."""
PIPE_SECONDS = 10.0
"""Waited for whoever writes into a pipe."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the numbers of YAML 1.2, JSON and Python: ``1e-3`` is one (1.1 wants ``1.0e-3``), ``010``, ``1:30`` and ``1:30.5`` are
    texts (they were 8, 90 and 90.5).  No name may be there twice.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        _once([(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)], lambda key: key[1])
        return node


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in some if tag not in (_INT, _FLOAT)]
    for first, some in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NUMBERS = (
    (_INT, r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (_FLOAT, r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?$", "-+.0123456789"),
    (_FLOAT, r"[-+]?[0-9]+[eE][-+]?[0-9]{1,2}$", "-+0123456789"),  # not the 12e4567 of a commit
    (_FLOAT, r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$", "-+."),
)
for _tag, _pattern, _first in _NUMBERS:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def _once(keys: Sequence[Any], name: Callable[[Any], str] = str) -> None:
    seen: set[Any] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"the name {name(key)[:60]!r} is there twice")
        seen.add(key)


def parse_json(text: str) -> Any:
    """What a text says, as plain data.

    Raises:
        ValueError, RecursionError: it is not JSON, or has a name twice.
    """

    def pairs(some: list[tuple[str, Any]]) -> dict[str, Any]:
        _once([name for name, _ in some])
        return dict(some)

    return json.loads(text, object_pairs_hook=pairs)


def parse_yaml(text: str) -> Any:
    """What a text says, as plain data.

    Raises:
        yaml.YAMLError, ValueError, TypeError, RecursionError: it is not YAML, or holds a value that cannot be.
    """
    return yaml.load(text, _Loader)  # a SafeLoader: it makes plain data only


def read_settings_text(path: Path) -> str:
    """The text of a user's file of settings; a pipe (``<(…)`` of a shell) is read too, a device without an end is not waited for.

    Raises:
        UsageError: it cannot be read, is no text, or is larger than :data:`LARGEST_FILE`.
    """
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise UsageError(f"{path} is a folder, not a file of settings.", "Give a YAML, TOML or JSON file.")
        data = _read(path)
        if len(data) > LARGEST_FILE:
            raise UsageError(f"{path} is too large to be a file of settings (more than {LARGEST_FILE} bytes).")
        return data.decode("utf-8-sig")  # editors of Windows put a mark before the text
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"Cannot read the file of settings {path}: {reason}.") from error


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to does not block
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return file.read(LARGEST_FILE + 1) or b""
        data = b""
        while len(data) <= LARGEST_FILE and select.select([descriptor], [], [], PIPE_SECONDS)[0]:
            if not (more := file.read(2**16)):
                break
            data += more
        if not data:
            raise ValueError("nothing comes out of this pipe")
        return data


def check_plain(settings: Mapping[str, Any]) -> None:
    """Refuse what cannot be a setting: numbers that are not finite or are huge, dates, bytes, text that is none, endless nesting.

    Raises:
        UsageError: naming the first one.
    """
    for count, (key, value) in enumerate(_values(settings, "", 0)):
        if count > MOST:
            raise UsageError(
                "There are too many values in these settings.", "References in YAML (&a, *a) are counted as often as used."
            )
        problem = _problem(value)
        if problem:
            raise UsageError(f"{key[:200]} {problem}.")


def _values(value: Any, key: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > DEEPEST:
        raise UsageError(f"{key[:60]}… is nested too deeply.", f"Settings have at most {DEEPEST} levels.")
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _values(item, f"{key}.{name}" if key else str(name), depth + 1)
            yield f"The name {str(name)[:60]!r}", name
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _values(item, key, depth + 1)
    yield key, value


def _problem(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, Mapping | list | tuple | Path):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"is {value}, which is not a number that can be used"
    if isinstance(value, int):
        return "" if abs(value) < LARGEST else "is a number out of range"
    if isinstance(value, str):
        return "is not UTF-8" if any("\ud800" <= letter <= "\udfff" for letter in value) else _control(value)
    if isinstance(value, datetime.date):
        return f"is a date ({value}); a text is put in quotes"
    return f"is of the type {type(value).__name__}, which no setting has"


def _control(text: str) -> str:
    odd = next((letter for letter in text if letter < " " and letter not in "\n\t\r"), "")
    return f"has a control character in it (U+{ord(odd):04X})" if odd else ""
