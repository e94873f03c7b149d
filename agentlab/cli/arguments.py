"""What a person can type that no verb can mean, refused in one place, and the streams that answers are written to."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from agentlab.disk.names import printable
from envs.errors import UsageError

LONGEST = 2**17
"""Characters of the longest argument; the system has a bound of this size too."""


def check(arguments: Sequence[str]) -> None:
    """Refuse arguments that are empty (an unset variable, mostly), are no text, or hold control characters.

    Raises:
        UsageError: one of them is; it is named by the option that it belongs to.
    """
    options = [""]
    for argument in arguments:
        name, equals, value = argument.partition("=")
        own = argument.startswith("--") and bool(equals)
        what = name if own else options[-1]
        _check(value if own else argument, f"The value of {printable(what)}" if what else "An argument")
        options.append(argument if argument.startswith("-") and not own else "")


def _check(text: str, what: str) -> None:
    if not text:
        raise UsageError(f"{what} is empty.", "Leave it out for the default; in a script, look for a variable that is not set.")
    if len(text) > LONGEST:
        raise UsageError(f"{what} has {len(text)} characters.", f"At most {LONGEST} are read; --config reads a file.")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UsageError(f"{what} is not UTF-8.", "Names of files and tasks are UTF-8 texts here.")
    if any(letter < " " and letter not in "\n\t" for letter in text):
        raise UsageError(f"{what} has a control character in it: {printable(text)[:80]}.", "Type it again without.")


def prepare_streams() -> None:
    """Make the standard streams take any text: what their encoding lacks is written as an escape, what is not UTF-8 is replaced.

    One that is closed (``>&-``) is replaced by one that leads nowhere.
    """
    for name, mode, errors in (("stdin", "r", "replace"), ("stdout", "w", "backslashreplace"), ("stderr", "w", "backslashreplace")):
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process lives
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def drop(stream: IO[str]) -> None:
    """Let a standard stream that takes no more lead nowhere: else Python complains of what is left for it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def names(text: str | None, option: str) -> list[str] | None:
    """The names in a comma-separated list; None if there is no list.

    Raises:
        UsageError: the list has no names in it.
    """
    if text is None:
        return None
    found = [name for part in text.split(",") if (name := part.strip())]
    if not found:
        raise UsageError(f"{option} {text!r} names nothing.", f"Give names, separated by commas, or leave out {option} for all.")
    return found


def clipped(text: str, longest: int = 300) -> str:
    """``text`` with the middle of every longer word left out: a value that somebody typed may be of any length."""
    return " ".join(_ends(word, longest) for word in text.split(" "))


def _ends(word: str, longest: int) -> str:
    return word if len(word) <= longest else f"{word[: longest // 2]}…{word[-longest // 4 :]}"


def one_line(lines: Iterable[str]) -> str:
    """The lines of another program's message, as one."""
    return " ".join(line.strip() for line in lines if line.strip())
