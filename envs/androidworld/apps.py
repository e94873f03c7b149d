"""Names of applications, one table for every server.

Upstream takes the first entry of its own table that is a *prefix pattern* of the name, so "Wallet" opens WhatsApp, and starts a package of
that name where nothing matches, so "Calendar" opens nothing; neither says so.  Here a name is looked up whole and resolved before it is
sent, to one that upstream's matcher and our guest server both open right; an unknown one is refused.

A name that upstream's table has means what it means there (Messages, Maps and Photos are Google's); other names that goals,
screens and models use mean the benchmark's applications.
"""

from __future__ import annotations

import re

from envs.androidworld.names import nearest
from envs.errors import InvalidActionError

NAMES: dict[str, tuple[str, ...]] = {
    # sent: also called
    "android world": (),
    "audio recorder": ("recorder",),
    "broccoli": ("broccoli recipe", "recipe", "recipes"),
    "camera": (),
    "chrome": ("browser", "google chrome"),
    "clipper": (),
    "clock": (),
    "contacts": (),
    "dialer": ("phone",),
    "files": ("file manager",),
    "gmail": ("gemail", "google mail", "google email", "google mail client"),
    "google calendar": ("gcal",),
    "google drive": ("drive", "gdrive"),
    "google maps": ("google map", "gmaps", "maps"),
    "google photos": ("google images", "google photo", "google pics", "gphotos", "photos"),
    "google search": ("google",),
    "joplin": ("notes",),
    "markor": (),
    "messages": (),
    "miniwob": (),
    "opentracks": ("activity tracker", "open tracks", "open tracks sports tracker", "sports tracker"),
    "osmand": (),
    "pro expense": ("arduia pro expense", "expense", "expenses"),
    "retro music": ("music", "retro", "retro player"),
    "settings": ("system settings",),
    "simple calendar pro": ("calendar", "simple calendar"),
    "simple draw pro": ("draw", "simple draw"),
    "simple gallery pro": ("gallery", "simple gallery"),
    "simple sms messenger": ("simple sms", "sms", "sms messenger"),
    "tasks": ("task", "tasks.org"),
    "vlc": ("vlc player",),
    "youtube": ("yt",),
}
"""The name that is sent, and the others that it goes by; lower case, without a closing "app"."""

APPS = tuple(NAMES)
ALIASES = {other: name for name, others in NAMES.items() for other in others}


def plain(name: str) -> str:
    """Lower case, single blanks, without a closing "app"."""
    return re.sub(r"\s+", " ", re.sub(r"\bapp(lication)?$", "", name.strip().lower())).strip()


def resolve(name: str) -> str:
    """The name to send, on whichever server, so that the application called ``name`` opens.

    Raises:
        InvalidActionError: the benchmark's phone has no such application.
    """
    wanted = plain(name)
    found = ALIASES.get(wanted, wanted)
    if found not in NAMES:
        raise InvalidActionError(f"There is no application {name[:40]!r}.{nearest(wanted, [*APPS, *ALIASES])}")
    return found
