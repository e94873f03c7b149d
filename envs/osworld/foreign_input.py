"""Performs operations inside a guest that is not ours, as our own guest does: by XTEST, every character by a key.

Sent as it is, for ``python -c``; argv[1] is the operations as JSON, argv[2] the text of ``xinput.py``, our guest's code for them.  Needs
what pyautogui needs, which OSWorld's hosts expect of any guest: Xlib.  Must not import anything of this project.
"""

import contextlib
import json
import sys
import types
from collections.abc import Iterator
from typing import Any

from Xlib import display

CONNECTION = display.Display()


@contextlib.contextmanager
def x_display() -> Iterator[Any]:
    """The X connection, which ``xinput.py`` asks our own guest's server for."""
    yield CONNECTION


for name in ("guest", "guest.screen"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["guest.screen"].x_display = x_display  # type: ignore[attr-defined]
xinput = types.ModuleType("xinput")
sys.modules["xinput"] = xinput
exec(compile(sys.argv[2], "xinput.py", "exec"), xinput.__dict__)  # noqa: S102 - our own file, as text, in the guest
try:
    xinput.perform(json.loads(sys.argv[1]))
except xinput.BadInput as error:
    sys.exit(str(error))
CONNECTION.sync()
