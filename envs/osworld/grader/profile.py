"""What a browser that is newer than OSWorld's evaluators notes in its profile by itself, where they look for what the agent did.

Chromium keeps, as if it were a default for websites, that it has carried the setting of local networks over into a newer form
(``profile.default_content_setting_values.has_migrated_local_network_access``), from its first start on.  OSWorld's code takes any entry
there for the agent's choice to forget websites' data (chrome/99146c54): the untouched profile would score 1.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

FILE = "/Preferences"
NOTE = "has_migrated_"
"""How the names of the browser's own entries begin; those of settings are ``cookies``, ``popups`` and so on."""

Read = Callable[[str], bytes | None]


def without_notes(read: Read) -> Read:
    """``read``, by which OSWorld's code reads a file of the guest, without the browser's own entries; other files as they are."""

    @functools.wraps(read)
    def cleaned(path: str) -> bytes | None:
        content = read(path)
        return _cleaned(content) if content and str(path).strip().endswith(FILE) else content

    return cleaned


def _cleaned(content: bytes) -> bytes:
    try:
        preferences = json.loads(content)
        defaults = preferences["profile"]["default_content_setting_values"]
        notes = [name for name in defaults if name.startswith(NOTE)]
        for name in notes:
            del defaults[name]
        if notes and not defaults:
            del preferences["profile"]["default_content_setting_values"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return content  # not the browser's, or without such entries
    return json.dumps(preferences).encode() if notes else content
