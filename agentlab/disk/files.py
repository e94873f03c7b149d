"""Reading and writing the files of a run: whole or not at all, torn last lines tolerated, errors that say what to do."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from envs.errors import StoreError
from envs.redaction import without_secrets

ATTEMPT = re.compile(r"attempt_([0-9]{2,9})$")
"""Folder names of attempts."""
HUGE = re.compile("[0-9]{20}")
"""Where a JSON may have a whole number of more than 64 bits."""
LARGEST = 256 * 2**20
"""Bytes of the largest file of a run that is read; a week of attempts has a results.jsonl of some megabytes."""
DEEPEST = 100
"""Levels of nesting of the deepest JSON that is read."""


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
        temporary.unlink(missing_ok=True)  # of a process that died, or a pipe or a link that somebody put there
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def check_output(folder: Path) -> None:
    """Refuse a folder for output before the work whose results it is to hold; nothing is left there.

    Raises:
        StoreError: it cannot be made, or nothing can be written into it.
    """
    with disk_errors(folder):
        there = next(path for path in (folder, *folder.absolute().parents) if _exists(path))
        if not there.is_dir():
            raise StoreError(f"Cannot use {folder}: {there} is not a folder.", "Choose a writable directory with --out DIR.")
        with tempfile.TemporaryFile(dir=there):
            pass


def _exists(path: Path) -> bool:
    """Whether something is there; unlike :meth:`Path.exists` it does not hide that a name is too long."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def fresh_folder(folder: Path) -> None:
    """Create an empty folder for an export.

    Raises:
        StoreError: it has something in it, or cannot be made.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StoreError(f"{folder} is not empty.", "Choose another folder for the export.")


def inside(path: Path, folder: Path) -> Path:
    """``path`` with its links followed, if that is still inside ``folder``.

    Raises:
        StoreError: it leads out, in circles, or to what is neither file nor folder.
    """
    try:
        real = path.resolve()
        if not real.is_relative_to(folder.resolve()):
            raise StoreError(f"{path} leads out of {folder}.", "Nothing outside a run directory is read.")
        mode = real.stat().st_mode if os.path.lexists(real) else stat.S_IFREG
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise StoreError(f"{path} cannot be read: {error}.", mend(path)) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise StoreError(f"{path} is not a file.", "Pipes and devices are not read.")
    return real


def read_bytes(path: Path, folder: Path | None = None) -> bytes:
    """The one way to read a file of a run, which may be damaged or a stranger's.

    Args:
        folder: Links are followed inside it only; the file's own folder if None.

    Raises:
        StoreError: missing or unreadable, not a regular file, larger than :data:`LARGEST`, or a link that leads out.
    """
    with disk_errors(path), open_regular(path, folder or path.parent) as file:
        return file.read(LARGEST + 1)


def open_regular(path: Path, folder: Path) -> BinaryIO:
    """The file, opened for reading.

    Raises:
        StoreError: as :func:`read_bytes`.
        OSError: the system refuses.
    """
    real = inside(path, folder)
    file = os.fdopen(os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb")  # a pipe put there meanwhile does not block
    about = os.fstat(file.fileno())
    if stat.S_ISREG(about.st_mode) and about.st_size <= LARGEST:
        return file
    file.close()
    if not stat.S_ISREG(about.st_mode):
        raise StoreError(f"{path} is not a file.", mend(path))
    raise StoreError(f"{path} is too large to be a file of a run ({about.st_size} bytes).", mend(path))


def read_text(path: Path, folder: Path | None = None) -> str:
    """A UTF-8 text, as :func:`read_bytes` reads it.

    Raises:
        StoreError: as there, or not UTF-8.
    """
    data = read_bytes(path, folder)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StoreError(f"{path} is corrupt: it is not UTF-8 ({error.reason} at byte {error.start}).", mend(path)) from error


def parse_json(data: bytes | str) -> Any:
    """JSON of a run: numbers are finite (others are None), texts can be encoded, nothing is nested deeper than :data:`DEEPEST`.

    Raises:
        ValueError: the text is not such JSON.
    """
    text = data if isinstance(data, str) else data.decode("utf-8")
    try:
        found = json.loads(text, parse_constant=lambda name: None, parse_float=_finite_float)
        if text.count("[") + text.count("{") > DEEPEST or "\\u" in text or HUGE.search(text):
            found = _cleaned(found, 0)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return found


def _finite_float(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _cleaned(value: Any, depth: int) -> Any:
    """Without lone surrogates, which neither files nor terminals accept, and with None for whole numbers that no float has."""
    if depth > DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, int) and value.bit_length() > 64:
        return None
    if isinstance(value, list):
        return [_cleaned(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_cleaned(key, depth): _cleaned(item, depth + 1) for key, item in value.items()}
    return value


def strict_json(content: Any, indent: int | None = None) -> str:
    """Strict JSON, which has no NaN and no infinity: such a number (of an update that was refused, say) is null."""
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(finite(content), indent=indent, allow_nan=False)


def finite(value: Any) -> Any:
    """``value`` with None for every number in it that is not finite, or has more than 64 bits."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and value.bit_length() > 64:
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def read_json(path: Path, folder: Path | None = None) -> dict[str, Any]:
    """A JSON object from a file of a run, as :func:`read_bytes` reads it.

    Raises:
        StoreError: unreadable, or not a JSON object.
    """
    raw = read_bytes(path, folder)
    try:
        data = parse_json(raw)
    except ValueError as error:
        raise StoreError(f"{path} is corrupt: {error}.", mend(path)) from error
    if not isinstance(data, dict):
        raise StoreError(f"{path} is corrupt: a JSON object was expected.", mend(path))
    return data


def read_lines(path: Path, folder: Path | None = None) -> list[dict[str, Any]]:
    """Objects of a .jsonl file; a torn last line (the process died while writing it) is left out.

    Raises:
        StoreError: unreadable, or a line other than the last is not a JSON object.
    """
    if not os.path.lexists(path):
        return []
    lines = read_bytes(path, folder).split(b"\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            if not isinstance(row, dict):
                raise ValueError("a JSON object was expected")
        except ValueError as error:
            if number == len(lines):  # no newline behind it: torn
                break
            raise StoreError(f"{path}, line {number} is corrupt: {error}.", mend(path)) from error
        rows.append(row)
    return rows


def check_files(folder: Path) -> None:
    """Refuse a folder that somebody else's code is to read (an adapter's) unless all in it are regular files.

    Raises:
        StoreError: it is missing or is not a folder, or something in it is a link, a pipe or the like.
    """
    with disk_errors(folder):
        for path in sorted(folder.iterdir()):
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise StoreError(f"{path} is not a file.", "Links, pipes and devices are not read.")


def mend(path: Path) -> str:
    if ATTEMPT.match(path.parent.name):
        return f"Move {path.parent} and the later attempts beside it out of the run; the same command then repeats them."
    if path.name == "results.jsonl":
        return f"Remove {path}; it is rebuilt from the result.json files."
    if path.name == "config.json":
        return (
            f"The results beside it may all be whole: put a copy of {path} back (a run with the same settings writes the same), or "
            "choose another directory with --out DIR."
        )
    return f"Restore {path} from a copy, or choose another directory with --out DIR."
