"""Parts that others bring, without a fork: found among what is installed (entry points), or named as ``module:Name``.

Every kind of part has one :class:`Plugins`.  A name that has been installed goes before one that could be read as ``module:Name``.
The current directory is importable for ``module:Name``, after everything that is installed, so that no file there can take the
place of one of our packages.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from envs.errors import LabError, UsageError, did_you_mean

MODULE_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
"""``package.module:Name``, or an attribute of it: ``package.module:Class.method``."""


def is_module_name(text: str) -> bool:
    """Whether ``text`` has the form ``module:Name``."""
    return MODULE_NAME.fullmatch(text) is not None


def _search_path() -> tuple[tuple[str, int], ...]:
    """Where installed packages are looked for, and when something last came to each place or went from it."""
    return tuple((entry, Path(entry or os.curdir).stat().st_mtime_ns) for entry in sys.path if Path(entry or os.curdir).exists())


@functools.lru_cache(maxsize=16)
def _points(where: tuple[tuple[str, int], ...], group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group; finding them reads a file of every installed package."""
    return tuple(entry_points(group=group))


class Plugins:
    """One kind of part, e.g. ``Plugins("policy", "agentlab.policies")``.

    Args:
        what: What a part is called in messages.
        group: Group of the entry points through which installed packages offer such parts.
    """

    def __init__(self, what: str, group: str) -> None:
        self.what, self.group = what, group

    def installed(self) -> dict[str, EntryPoint]:
        """Name -> entry point of all that installed packages offer; nothing is imported."""
        return dict(sorted((point.name, point) for point in _points(_search_path(), self.group)))

    def load(self, name: str) -> Any:
        """What ``name`` means: an installed part, or what ``module:Name`` names.

        Raises:
            UsageError: there is no such part, or it cannot be imported; the message says why.
        """
        installed = self.installed()
        if name in installed:
            return load_entry_point(installed[name], self.what)
        if not is_module_name(name):
            raise UsageError(f"There is no {self.what} {name!r}.", did_you_mean(name, installed, what=self.what))
        return load_module_name(name, self.what)


def load_entry_point(point: EntryPoint, what: str) -> Any:
    """The part behind an entry point.

    Raises:
        UsageError: the package that offers it is broken.
    """
    owner = point.dist.name if point.dist is not None else "a package"
    module, _, name = point.value.partition(":")
    found: Any = _import(module, f"The {what} {point.name!r} of {owner} cannot be loaded", f"`python -m pip uninstall {owner}`")
    try:
        return functools.reduce(getattr, name.split("."), found)
    except AttributeError as error:
        raise UsageError(
            f"The {what} {point.name!r} of {owner} cannot be loaded: {module} has no {name!r}.",
            f"Mend that package, or remove it: `python -m pip uninstall {owner}`.",
        ) from error


def load_module_name(text: str, what: str) -> Any:
    """What ``module:Name`` names; a module that is not installed is looked for in the current directory.

    Raises:
        UsageError: not of that form, no such module or name, or the module fails when it is imported; or a run directory named it
            and the user did not (see :func:`only_named`).
    """
    if not is_module_name(text):
        raise UsageError(f"{text!r} does not name a {what}.", "Use module:Name, e.g. my_package.my_module:MyClass.")
    _refuse_unnamed(text, what)
    module_name, _, name = text.partition(":")
    _make_current_directory_importable()
    module = _import(module_name, f"The {what} {text!r} cannot be loaded")
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            where = getattr(module, "__file__", None) or "built in"
            public = [known for known in vars(found) if not known.startswith("_")] if hasattr(found, "__dict__") else []
            hint = did_you_mean(name, public, what=what) if len(public) <= 12 else _nearest(part, public)
            raise UsageError(f"The {what} {text!r} cannot be loaded: {module_name} ({where}) has no {part!r}.", hint)
        found = getattr(found, part)
    return found


def _nearest(name: str, known: Collection[str]) -> str:
    hint = did_you_mean(name, known, what="name")
    return (
        hint
        if hint.startswith("Did you mean")
        else "If that is not the file you meant, rename yours: the installed one goes first."
    )


def _import(module: str, failure: str, remove: str = "") -> ModuleType:
    """Import somebody else's module; whatever goes wrong in it becomes one message.

    Raises:
        UsageError: there is no such module, or it failed.
    """
    hint = f"Mend that package, or remove it: {remove}." if remove else ""
    try:
        return importlib.import_module(module)
    except LabError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            where = f"Modules are looked for among what is installed, and in {Path.cwd()}."
            raise UsageError(f"{failure}: there is no module {error.name!r}.", hint or where) from error
        raise UsageError(f"{failure}: it imports {error.name!r}, which is not installed.", hint) from error
    except (Exception, SystemExit) as error:  # a stranger's code: anything may be raised
        raise UsageError(f"{failure}: {type(error).__name__}: {error}{_place(error, module)}", hint) from error


def _place(error: BaseException, module: str) -> str:
    """Where in somebody's file it went wrong: the innermost line that is not the import machinery's."""
    if isinstance(error, SyntaxError):
        return ""  # its text says where
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<frozen") and Path(file) != Path(__file__) and "importlib" not in file:
            place = f" ({file}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place


def _make_current_directory_importable() -> None:
    """The current directory stays at the end of the search path: a part may import its neighbours later, when it is used."""
    here = str(Path.cwd())
    if here not in (os.path.realpath(entry or os.curdir) for entry in sys.path):
        sys.path.append(here)
        importlib.invalidate_caches()


# -- what a run directory may not do -----------------------------------------------------------------------------------------------
_named: frozenset[str] | None = None
"""The only ``module:Name`` texts that may be loaded; None: any, as whoever writes them is the user."""


@contextmanager
def only_named(*texts: str | None) -> Iterator[None]:
    """Within it, only these ``module:Name`` texts are loaded: those on the command line of a verb that reads a run.

    The run may be a stranger's, and what is imported is executed.
    """
    global _named
    starts = (MODULE_NAME.match(text) for text in texts if text)  # of `module:Name-part` what is loaded is `module:Name`
    before, _named = _named, frozenset(start[0] for start in starts if start)
    try:
        yield
    finally:
        _named = before


def _refuse_unnamed(text: str, what: str) -> None:
    if _named is not None and text not in _named:
        raise UsageError(
            f"This run uses the {what} {text!r}, which is code that its directory names.",
            "It is loaded only if you name it yourself on the command line, which says that you trust it.",
        )
