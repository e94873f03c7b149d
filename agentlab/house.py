"""Are ``envs``, ``policies`` and ``retrospect`` ours?  Their names are common words, and Python takes the first it finds.

A folder with somebody's ``envs/`` or ``policies.py`` can stand before ours on the search path, and a distribution of such a name can be
installed over ours.  This is looked at before anything of them is imported, so this module imports nothing of theirs.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("envs", "policies", "retrospect")
HOME = Path(__file__).resolve().parents[1]
"""The folder that holds our packages."""
MARK = "rosa-agentlab"
"""Stands in the first lines of each package's ``__init__.py``; a file of another distribution in its place has none."""
REINSTALL = "python -m pip install --force-reinstall --no-deps ."
EXIT_CODE = 3
"""As :class:`envs.errors.SetupError`, which cannot be imported here."""


def what_is_wrong() -> str:
    """What stands in the place of a package of ours, with the remedy; "" if nothing does."""
    for name in PACKAGES:
        ours = HOME / name / "__init__.py"
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec is not None and spec.origin not in (None, "namespace") else None
        if found is not None and found != ours:
            return _another(name, found)
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        if found is None and folders and Path(folders[0]).resolve() != ours.parent:
            return _another(
                name, Path(folders[0]).resolve()
            )  # a folder without __init__.py, before an editable installation of ours
        if found is None or not _is_ours(ours):
            return (
                f"The package {name!r} of agentlab is damaged: another distribution has been installed over {ours}.\n"
                f"Remove that one (`python -m pip uninstall {name}`) and bring ours back, in your clone of agentlab: `{REINSTALL}`."
            )
    return ""


def _another(name: str, found: Path) -> str:
    """Somebody else's package is found first: a file of the user's, or an installed distribution."""
    if "site-packages" in found.parts:
        return (
            f"The package {name!r} of agentlab is hidden by another distribution of that name: {found}.\n"
            f"Remove it: `python -m pip uninstall {name}`."
        )
    return (
        f"The package {name!r} of agentlab is hidden by {found}, which Python finds first.\n"
        "Rename that file or folder, use another folder, or say `agentlab` instead of `python -m agentlab` and leave its folder out of "
        "PYTHONPATH."
    )


def _is_ours(file: Path) -> bool:
    try:
        return MARK in file.read_text(encoding="utf-8")[:500]
    except (OSError, UnicodeDecodeError):
        return False


def require_ours() -> None:
    """End the process with one message if a package is not ours."""
    problem = what_is_wrong()
    if problem:
        sys.stderr.write(f"error: {problem}\n")
        sys.exit(EXIT_CODE)
