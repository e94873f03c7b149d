"""Whether the pictures are those of a phone that draws.

A black picture may be a switched-off display, a broken renderer or a film that begins in the dark; a picture that does not change may
be a stalled one or an action that had no effect.  The picture alone cannot tell.  So the phone is asked to draw a mark of its own over
whatever is in front (``pointer_location``, a line of coordinates that the system itself draws above everything, which takes no focus
and which upstream hides in the same way), and the mark must be seen to come.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from guest import screens
from guest.errors import GuestError

MARK = "system pointer_location"
MARK_S = 5.0
"""How long a phone may take to draw its mark."""
GLANCE_MARK_S = 1.2
"""The same where an answer is due at once, for /health."""
MARK_POLL_S = 0.05
CLEAR_S = 2.0
EQUAL_LOOKS = 3
"""Among pictures that no action has changed, the first is questioned, and then every third one."""


class Phone(Protocol):
    """What :class:`guest.device.Device` has of a phone."""

    def pixels(self) -> Any: ...

    def shell(self, command: str, timeout_s: float = 20.0) -> str: ...


class Sight:
    """Vouches for the pictures of one phone."""

    def __init__(self, phone: Phone, patience: float = 1.0) -> None:
        self._phone, self._patience = phone, patience
        self._shown: Any = None
        self._acted = False
        self._equal = 0

    def acted(self) -> None:
        """Something was done to the phone: its next picture should be another one."""
        self._acted = True

    def begin(self) -> None:
        """An attempt begins: what was shown before it is forgotten, and the mark is off.

        android_env switches it on whenever it connects to a phone; upstream's agents switch it off before they look, and so does this.
        """
        self._phone.shell(f"settings put {MARK} 0")
        self._shown, self._acted, self._equal = None, False, 0

    def vouch(self, pixels: Any) -> Any:
        """``pixels``, or the picture after a sleeping phone was woken, once it is certain that the phone shows them.

        Raises:
            GuestError: screen_blank, screen_frozen.
        """
        if not screens.is_drawn(pixels):
            pixels = self.prove()
        elif self._acted and screens.same(pixels, self._shown):
            self._equal += 1
            if self._equal % EQUAL_LOOKS == 1:
                pixels = self.prove()
        elif self._acted:
            self._equal = 0
        self._shown, self._acted = pixels, False
        return pixels

    def prove(self, mark_s: float = MARK_S) -> Any:
        """See the phone draw, and return its picture as it is without the mark.

        Raises:
            GuestError: screen_blank, screen_frozen, where it does not.
        """
        before = self._phone.pixels()
        if not screens.is_drawn(before) and self._woken():
            before = self._phone.pixels()
        value = self._phone.shell(f"settings get {MARK}").strip()
        there = value == "1"  # an agent may have switched it on; then its going is what must be seen
        self._phone.shell(f"settings put {MARK} {int(not there)}")
        try:
            marked = self._changed(before, mark_s)
        finally:
            self._phone.shell(f"settings put {MARK} {int(there)}")
        if marked is None:
            drawn = screens.is_drawn(before)
            what = "its picture stays as it is" if drawn else "the screen stays of a single colour"
            raise GuestError("screen_frozen" if drawn else "screen_blank", f"The phone was asked to draw a mark, and {what}.")
        cleared = self._changed(marked, CLEAR_S)
        if cleared is None:
            raise GuestError("screen_frozen", "The phone has drawn its mark, and its picture stays so.")
        return cleared

    def _changed(self, before: Any, limit_s: float) -> Any:
        """The first picture that differs from ``before``, or None."""
        deadline = time.monotonic() + limit_s * self._patience
        while True:
            now = self._phone.pixels()
            if not screens.same(now, before):
                return now
            if time.monotonic() > deadline:
                return None
            time.sleep(MARK_POLL_S)

    def _woken(self) -> bool:
        """Wake a phone that sleeps: a screen that times out while the agent thinks is not the fault of either."""
        state = self._phone.shell("dumpsys power | grep mWakefulness=")
        if "Asleep" not in state and "Dozing" not in state:
            return False
        self._phone.shell("input keyevent KEYCODE_WAKEUP")
        self._phone.shell("wm dismiss-keyguard")
        time.sleep(0.5)
        return True
