"""The screen: one shared X connection, screenshots with the pointer, and whether the desktop has been drawn."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageGrab
from Xlib import X, display
from Xlib.ext import xfixes
from Xlib.xobject.drawable import Window

DISPLAY = os.environ.get("DISPLAY", ":0")
SETTLE_SECONDS = 0.15
"""Two pictures this far apart must be equal before the desktop counts as drawn."""
MIN_COLOURS = 64
"""An empty root window has one colour, a wallpaper with icons thousands."""

_lock = threading.RLock()
_display: display.Display | None = None


@contextmanager
def x_display() -> Iterator[display.Display]:
    """The X connection, for one thread at a time.

    python-xlib is not thread-safe: two threads in it at once, even for a geometry question, leave both waiting for ever.  All
    access goes through here.
    """
    global _display
    with _lock:
        if _display is None:
            _display = display.Display(DISPLAY)
            if _display.has_extension("XFIXES"):
                _display.xfixes_query_version()
        yield _display


def size() -> tuple[int, int]:
    """(width, height) in pixels."""
    with x_display() as d:
        screen = d.screen()
        return screen.width_in_pixels, screen.height_in_pixels


def pointer() -> tuple[int, int]:
    """Where the pointer is, in pixels."""
    with x_display() as d:
        at = d.screen().root.query_pointer()
        return at.root_x, at.root_y


def grab(with_pointer: bool = True) -> Image.Image:
    """The screen as an RGB image.  An X grab has no pointer, so it is pasted in as the server draws it."""
    picture = ImageGrab.grab(xdisplay=DISPLAY)
    if with_pointer:
        with x_display() as d:
            cursor: xfixes.GetCursorImageReply = d.xfixes_get_cursor_image(d.screen().root)
        argb = b"".join((pixel & 0xFFFFFFFF).to_bytes(4, "little") for pixel in cursor.cursor_image)
        stamp = Image.frombytes("RGBA", (cursor.width, cursor.height), argb, "raw", "BGRA")
        picture.paste(stamp.convert("RGB"), (cursor.x - cursor.xhot, cursor.y - cursor.yhot), stamp.getchannel("A"))
    return picture


def png(picture: Image.Image) -> bytes:
    """PNG, run-length coded: a desktop is flat colours, and this takes half the time of the default for the same size."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1, compress_type=Image.RLE)
    return buffer.getvalue()


def missing_parts() -> list[str]:
    """What of the desktop is not on the screen yet; empty when it is drawn and at rest.

    The protocol answers about a second before the panel and the icons are painted, and a picture can be at rest with nothing on
    it but the wallpaper, so the windows are asked for by their kind first.
    """
    with x_display() as d:
        kinds = {kind for window in client_windows(d) for kind in _kinds(d, window)}
    missing = [kind for kind in ("_NET_WM_WINDOW_TYPE_DESKTOP", "_NET_WM_WINDOW_TYPE_DOCK") if kind not in kinds]
    if missing:
        return missing
    before = grab(with_pointer=False)
    if before.resize((480, 270)).getcolors(MIN_COLOURS) is not None:
        return ["wallpaper"]
    time.sleep(SETTLE_SECONDS)
    return [] if before.tobytes() == grab(with_pointer=False).tobytes() else ["rest"]


def client_windows(d: display.Display) -> list[Window]:
    """The top-level windows that the window manager knows, oldest first."""
    found = d.screen().root.get_full_property(d.get_atom("_NET_CLIENT_LIST"), X.AnyPropertyType)
    return [d.create_resource_object("window", xid) for xid in found.value] if found else []


def active_window_class() -> str:
    """WM_CLASS of the window that has the focus, lower case, or an empty string."""
    with x_display() as d:
        found = d.screen().root.get_full_property(d.get_atom("_NET_ACTIVE_WINDOW"), X.AnyPropertyType)
        if not found or not found.value or not found.value[0]:
            return ""
        names = d.create_resource_object("window", found.value[0]).get_wm_class()
        return " ".join(names).lower() if names else ""


def _kinds(d: display.Display, window: Window) -> list[str]:
    found = window.get_full_property(d.get_atom("_NET_WM_WINDOW_TYPE"), X.AnyPropertyType)
    return [d.get_atom_name(atom) for atom in found.value] if found else []
