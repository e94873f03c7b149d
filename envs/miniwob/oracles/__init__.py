"""Scripted experts that run inside the task page: for tests, demonstrations and training, never for an agent's observation.

Each ``*.js`` file of this folder registers experts by task name (``register('click-test click-test-2', expert)``); ``common.js``
comes first.  An expert maps the page's state to ``{thought, actions: [action JSON], box?}`` in pixels of the viewport.
"""

from __future__ import annotations

import functools
import re
from importlib import resources

_REGISTERED = re.compile(r"\bregister\('([a-z0-9 -]+)'")


def _sources() -> list[str]:
    files = [f for f in resources.files(__name__).iterdir() if f.name.endswith(".js")]
    files.sort(key=lambda f: (f.name != "common.js", f.name))
    return [f.read_text(encoding="utf-8") for f in files]


@functools.cache
def script() -> str:
    """All experts as one init script; it must run before the page's own scripts."""
    return "\n".join(_sources())


@functools.cache
def oracle_tasks() -> list[str]:
    """Names of the tasks that have an expert, sorted."""
    return sorted({name for names in _REGISTERED.findall(script()) for name in names.split()})
