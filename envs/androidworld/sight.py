"""Whether the pictures of a device behind upstream's server are those of a phone that draws; our own server sees to that itself.

A picture of one colour may be a switched-off display or a plain page, one that no action has changed may be a frozen one or an action
without effect.  Where adb can be reached, the phone is asked to draw a mark of its own; where not, the doubt is settled when the episode
is over, by going home, which must change the picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from envs.base import Screenshot
from envs.errors import InfrastructureError

MARK = ("system", "pointer_location")
MARK_SECONDS = 8.0
MARK_POLL_SECONDS = 0.1
EQUAL_LOOKS = 3
"""Among pictures that no action has changed, the first is questioned, and then every third one."""

Shell = Callable[[list[str]], str]
"""Runs one command of the phone's shell, given as words, and returns its output."""


def one_colour(picture: Screenshot) -> bool:
    """Whether every pixel is the same; the whole picture is looked at where a sample of it is of one colour."""
    return not any(bool((part != part[0, 0]).any()) for part in (picture[::16, ::16], picture))


class Doubts:
    """Pictures that may not be the phone's, in their order; those of an episode before count, since going home changes the screen."""

    def __init__(self) -> None:
        self._shown: Screenshot | None = None
        self._acted, self._equal = False, 0
        self.last: Screenshot | None = None
        """The picture that is in doubt now, if there is one."""

    def acted(self) -> None:
        """Something was done: the next picture should be another one."""
        self._acted = True

    def look(self, picture: Screenshot) -> bool:
        """Whether ``picture`` should be questioned now."""
        still = self._acted and self._shown is not None and np.array_equal(picture, self._shown)
        self._equal = self._equal + 1 if still else 0 if self._acted else self._equal
        self._shown, self._acted = picture, False
        blank = one_colour(picture)
        self.last = picture if blank or self._equal else None
        return blank or (still and self._equal % EQUAL_LOOKS == 1)


def prove(shell: Shell, picture: Callable[[], Screenshot]) -> Screenshot:
    """See the phone draw a mark of its own, and return its picture without the mark.

    Raises:
        InfrastructureError: it does not draw.
    """
    before = picture()
    if one_colour(before) and any(state in shell(["dumpsys", "power"]) for state in ("mWakefulness=Asleep", "mWakefulness=Dozing")):
        shell(["input", "keyevent", "KEYCODE_WAKEUP"])
        shell(["wm", "dismiss-keyguard"])
        time.sleep(0.5)
        before = picture()
    there = shell(["settings", "get", *MARK]).strip() == "1"
    shell(["settings", "put", *MARK, str(int(not there))])
    try:
        marked = _changed(picture, before)
    finally:
        shell(["settings", "put", *MARK, str(int(there))])
    return _changed(picture, marked)


def _changed(picture: Callable[[], Screenshot], before: Screenshot) -> Screenshot:
    until = time.monotonic() + MARK_SECONDS
    while np.array_equal(now := picture(), before):
        if time.monotonic() > until:
            raise not_drawn(before)
        time.sleep(MARK_POLL_SECONDS)
    return now


def not_drawn(picture: Screenshot) -> InfrastructureError:
    """The failure of a phone that should look otherwise than ``picture``."""
    what = "of a single colour" if one_colour(picture) else "frozen"
    return InfrastructureError(
        f"The emulator's screen is {what}, whatever is done: what the agent saw was not the phone.", component="emulator"
    )
