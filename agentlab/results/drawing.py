"""Actions drawn onto screenshots: what the agent did, and where."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from envs import actions as act
from envs.base import Screenshot

INK = (214, 0, 92, 255)
"""Magenta: rare on screens."""
HALO = (255, 255, 255, 235)
SMOOTH = 3
"""Marks are drawn this many times larger and shrunk, which smooths their edges."""

Box = tuple[float, float, float, float]


@functools.cache
def font(size: int, style: str = "") -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib brings it: the same on every machine.  ``style`` is "", ``-Bold`` or ``Mono``."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{style}.ttf"), size)


def draw_actions(screenshot: Screenshot, actions: Iterable[act.Action], scale: float = 1.0) -> Image.Image:
    """The screenshot, enlarged, with the actions of one reply on it: marks where they have a place, a caption where not."""
    height, width = screenshot.shape[:2]
    size = (round(width * scale), round(height * scale))
    picture = Image.fromarray(screenshot).resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    layer = Image.new("RGBA", (size[0] * SMOOTH, size[1] * SMOOTH))
    pen = Pen(ImageDraw.Draw(layer), scale * SMOOTH, unit=SMOOTH * max(1.0, min(size) / 320))
    captions = []
    for action in actions:
        pen.mark(action)
        captions.append(caption(action))
    picture.alpha_composite(layer.resize(size, Image.Resampling.LANCZOS))
    words = " · ".join(c for c in captions if c)
    if words:
        _chip(picture, words)
    return picture.convert("RGB")


def caption(action: act.Action) -> str:
    """What a mark cannot show; "" where the mark says it all."""
    if isinstance(action, act.Type):
        return f"types “{action.text}”" + (" ⏎" if action.submit else "")
    if isinstance(action, act.Hotkey):
        return "presses " + "+".join(action.keys)
    if isinstance(action, act.OpenApp):
        return f"opens {action.name}"
    if isinstance(action, act.Answer):
        return f"answers “{action.text}”"
    if isinstance(action, act.Invalid):
        return "not an action"
    if isinstance(action, act.POINTED):
        return "" if isinstance(action, act.Click | act.Drag | act.Scroll) else action.kind.replace("_", " ")
    return action.kind.replace("_", " ")


class Pen:
    """Draws marks in the pixels of an enlarged layer."""

    def __init__(self, draw: ImageDraw.ImageDraw, scale: float, unit: float) -> None:
        self.draw, self.scale, self.unit = draw, scale, unit

    def mark(self, action: act.Action) -> None:
        """The mark of an action that has a place; nothing for the others."""
        if not isinstance(action, act.POINTED):
            return
        x, y, u = action.x * self.scale, action.y * self.scale, self.unit
        if isinstance(action, act.Drag):
            self._arrow(x, y, action.end_x * self.scale, action.end_y * self.scale)
            self._dot(x, y, 5 * u)
        elif isinstance(action, act.Scroll):
            dx, dy = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}[action.direction]
            self._arrow(x - 16 * u * dx, y - 16 * u * dy, x + 22 * u * dx, y + 22 * u * dy)
        else:
            self._dot(x, y, 2.5 * u)
            self._ring(x, y, 11 * u)
            if not isinstance(action, act.Click | act.Hover):
                self._ring(x, y, 17 * u)

    def _ring(self, x: float, y: float, radius: float) -> None:
        for width, colour in ((6, HALO), (3, INK)):
            grown = radius + width * self.unit / 2
            self.draw.ellipse((x - grown, y - grown, x + grown, y + grown), outline=colour, width=round(width * self.unit))

    def _dot(self, x: float, y: float, radius: float) -> None:
        for grown, colour in ((radius + 1.5 * self.unit, HALO), (radius, INK)):
            self.draw.ellipse((x - grown, y - grown, x + grown, y + grown), fill=colour)

    def _arrow(self, x: float, y: float, to_x: float, to_y: float) -> None:
        angle = math.atan2(to_y - y, to_x - x)
        for width, head, colour in ((7, 17, HALO), (3.5, 13, INK)):
            w, size = width * self.unit, head * self.unit
            wings = [(to_x - size * math.cos(angle + s), to_y - size * math.sin(angle + s)) for s in (-0.5, 0.5)]
            back = size * 0.7
            self.draw.line((x, y, to_x - back * math.cos(angle), to_y - back * math.sin(angle)), fill=colour, width=round(w))
            self.draw.polygon([(to_x, to_y), *wings], fill=colour)


def _chip(picture: Image.Image, words: str) -> None:
    """A dark label at the lower edge."""
    face = font(max(12, picture.width // 24))
    line = fit(" ".join(words.split()), face, picture.width - 20)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = face.getbbox(line)
    height = bottom - top + 12
    y = picture.height - height - 6
    draw.rounded_rectangle((6, y, 6 + right - left + 14, y + height), radius=5, fill=INK)
    draw.text((13 - left, y + 6 - top), line, font=face, fill="white")


def fit(line: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """The line, cut with an ellipsis to what fits into ``width`` pixels."""
    if face.getlength(line) <= width:
        return line
    while line and face.getlength(line + "…") > width:
        line = line[: -max(1, len(line) // 16)]
    return line + "…"


def wrap(text: str, face: ImageFont.FreeTypeFont, width: float, lines: int) -> list[str]:
    """The text in at most ``lines`` lines of ``width`` pixels; what does not fit ends in an ellipsis."""
    found: list[str] = []
    for paragraph in text.split("\n"):
        current = ""
        for word in paragraph.split():
            longer = f"{current} {word}".strip()
            if current and face.getlength(longer) > width:
                found.append(current)
                current = word
            else:
                current = longer
        found.append(current)
    if len(found) > lines:
        found = [*found[: lines - 1], found[lines - 1] + " …"]
    return [fit(line, face, width) for line in found]
