"""Names of applications, as upstream has them, to what Android starts.

Upstream matches the beginning of a name against a table and starts a package of that name where nothing matches: "Calendar" is
silently nothing and "Wallet" is WhatsApp.  Here a name is looked up whole in upstream's table, and one that is not known is refused.
What else an agent may call an application is the client's table (``envs/androidworld/apps.py``), for this server and for upstream's.
"""

from __future__ import annotations

import difflib
import re

from guest.errors import GuestError


def _plain(name: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\bapp(lication)?$", "", name.strip().lower())).strip()


def table() -> dict[str, str]:
    """Every name of upstream's table, lower case, to ``package/activity``."""
    from android_world.env import adb_utils

    return {
        _plain(name): activity
        for pattern, activity in adb_utils._PATTERN_TO_ACTIVITY.items()
        for name in pattern.rstrip(":").split("|")
    }


def activity_of(name: str, installed: set[str]) -> str:
    """``package/activity``, or a package alone, of the application called ``name``.

    Raises:
        GuestError: unknown_app, for a name that is not known or not installed; ``detail.near`` has names that are.
    """
    known = table()
    plain = _plain(name)
    activity = known.get(plain, name)
    if activity.split("/")[0] in installed:
        return activity
    here = sorted(n for n, a in known.items() if a.split("/")[0] in installed)
    near = difflib.get_close_matches(plain, here, n=3, cutoff=0.4)
    why = "is not installed" if plain in known else "is not known"
    raise GuestError("unknown_app", f"The application {name!r} {why}.", near=near)


def name_of(activity: str) -> str:
    """The first name in upstream's table of an activity's package, or an empty string."""
    from android_world.env import adb_utils

    package = activity.split("/")[0]
    for pattern, target in adb_utils._PATTERN_TO_ACTIVITY.items():
        if package and target.split("/")[0] == package:
            return pattern.split("|")[0]
    return ""
