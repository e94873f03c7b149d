"""Names of folders: readable, and never the same for two different things."""

from __future__ import annotations

import hashlib
import re

_PART = r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_-])?"
PLAIN = re.compile(rf"{_PART}(?:/{_PART})*")
"""Names that every file system takes as they are, but for the ``/``: whatever it does with case, or with a dot at the end."""
LONGEST = 100
"""Characters of a folder's name, without the digest."""
FOLDER = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._~+-]{0,199}")
"""What a session's folder may be called."""
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but for tab and newline, marks that turn the direction of writing, and halves of surrogate pairs."""


def digest(text: str) -> str:
    """Sixteen hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def printable(text: str) -> str:
    """``text`` with a replacement character for each character that is not to reach a terminal."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def quoted(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]|~#<>])", r"\\\1", " ".join(printable(text).split())).replace("\\<", "&lt;").replace("\\>", "&gt;")


def slug(name: str) -> str:
    """``name`` in letters that every file system and address takes; different names may give the same."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:LONGEST] or "task"


def folder_name(task: str) -> str:
    """A task's id as a folder name; different ids have different names.

    Ids of plain lower-case letters are their own name, with ``+`` for ``/`` (``chrome/a1b2_0`` is ``chrome+a1b2_0``).  Any other id is
    shown as far as it can be, and told apart by a digest of itself after a ``~``: ``a b_0`` is ``a-b_0~6e1c…``.  Plain ids have
    neither ``+`` nor ``~``.
    """
    if len(task) <= LONGEST and PLAIN.fullmatch(task):
        return task.replace("/", "+")
    return f"{slug(task)}~{digest(task)}"
