"""What the machine refuses while a verb runs, said in a line: it is nobody's bug, so it has no traceback."""

from __future__ import annotations

import errno
import os

from envs.errors import LabError, SetupError, StoreError, UsageError

OURS = ("agentlab", "envs", "policies", "retrospect")
FILES = "Use fewer --workers, or raise the limit in this shell: `ulimit -n 4096`."
MEMORY = "End other programs, use fewer --workers, or lift the limit of this shell (`ulimit -v`)."


def of_the_machine(error: BaseException) -> LabError | None:
    """The error for a person, where ``error`` is the machine's or the input's doing; None where it is a bug of ours."""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return SetupError("There is not enough memory for this.", MEMORY)
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return SetupError(
            "The system starts no more threads.", "Use fewer --workers, or raise the limit in this shell: `ulimit -u`."
        )
    if isinstance(error, RecursionError):
        return UsageError("Something that was given is nested too deeply to be read.")
    if isinstance(error, ImportError):
        return _not_importable(error)
    return _refused(error) if isinstance(error, OSError) else None


def _refused(error: OSError) -> LabError:
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return SetupError(f"{reason}.", FILES)
    if error.errno == errno.ENOMEM:
        return SetupError("There is not enough memory for this.", MEMORY)
    named = " and ".join(os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes))
    if error.errno == errno.ENOSPC:
        return StoreError(f"{reason}{f': {named}' if named else ''}.", "Free some space, or write elsewhere with --out DIR.")
    return StoreError(f"Cannot use {named}: {reason}." if named else f"The system refused: {reason}.")


def _not_importable(error: ImportError) -> LabError | None:
    """An installed library that the system cannot load; one of our own packages is a bug."""
    name = error.name or ""
    if not name or name.partition(".")[0] in OURS:
        return None
    lines = str(error).strip().splitlines() or [type(error).__name__]
    shown = next((line for line in reversed(lines) if "error" in line.lower()), lines[0])
    return SetupError(
        f"The library {name} cannot be loaded: {shown.strip().rstrip('.')}.",
        "If memory or open files are limited here (`ulimit -a`), lift that; else reinstall it: "
        f"`python -m pip install --force-reinstall {name.partition('.')[0]}`.",
    )
