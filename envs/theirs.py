"""Code of a benchmark's own while it runs: what it raises that nobody meant to raise is a fault of the machinery."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from envs.errors import InfrastructureError, LabError

LONGEST = 300
"""Characters of an exception's own words that are told."""


@contextmanager
def their_code(owner: Callable[..., Any], method: str, component: str = "environment") -> Iterator[None]:
    """While ``method`` of ``owner`` (a class, or a function that makes an environment) runs.

    Raises:
        InfrastructureError: it raised what is no :class:`~envs.errors.LabError`; with the place in the owner's file, and the exception
            as the cause.
    """
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = getattr(sys.modules.get(owner.__module__), "__file__", None)  # none of what is typed in
        where = ([frame for frame in frames if frame.filename == own] or frames)[-1]
        raise InfrastructureError(
            f"{owner.__name__}.{method} raised {type(error).__name__}: {str(error)[:LONGEST] or 'no message'} "
            f"({Path(where.filename).name}, line {where.lineno}).",
            "Mend it there; the attempt does not count.",
            component=component,
        ) from error
