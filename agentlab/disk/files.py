"""Reading and writing the files of a run: whole or not at all, torn last lines tolerated, errors that say what to do."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envs.errors import StoreError
from envs.redaction import without_secrets

ATTEMPT = re.compile(r"attempt_(\d{2,})$")
"""Folder names of attempts."""


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about ``path`` into the error a person can act on."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"Cannot use {path}: {reason}.", "Choose a writable directory with --out DIR, or free some space."
        ) from error


def write_atomic(path: Path, text: str) -> None:
    """Write the whole file under a temporary name and rename it, so that a reader sees the old file or the new one.

    Keys and passwords that are known do not get into it.
    """
    text = without_secrets(text)
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path):
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def fresh_folder(folder: Path) -> None:
    """Create an empty folder for an export.

    Raises:
        StoreError: it has something in it, or cannot be made.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StoreError(f"{folder} is not empty.", "Choose another folder for the export.")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of ours.

    Raises:
        StoreError: unreadable, or not a JSON object.
    """
    with disk_errors(path):
        raw = path.read_bytes()
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise StoreError(f"{path} is corrupt: {error}.", mend(path)) from error
    if not isinstance(data, dict):
        raise StoreError(f"{path} is corrupt: a JSON object was expected.", mend(path))
    return data


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a .jsonl file; a torn last line (the process died while writing it) is left out.

    Raises:
        StoreError: a line other than the last is not a JSON object.
    """
    if not path.exists():
        return []
    with disk_errors(path):
        lines = path.read_bytes().split(b"\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # no newline behind it: torn
                break
            raise StoreError(f"{path}, line {number} is corrupt: {error}.", mend(path)) from error
        if isinstance(row, dict):
            rows.append(row)
    return rows


def mend(path: Path) -> str:
    if ATTEMPT.match(path.parent.name):
        return f"Remove {path.parent} and the later attempts beside it; the same command then makes them again."
    if path.name == "results.jsonl":
        return f"Remove {path}; it is rebuilt from the result.json files."
    return "Choose another directory with --out DIR, or remove this one to start again."
