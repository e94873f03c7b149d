"""The few calls to OpenCV that the guest and the stand-in's picture make, by Pillow, where OpenCV is not installed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

COLOR_RGB2BGR, INTER_CUBIC, FONT_HERSHEY_SIMPLEX = 4, 2, 0
IMWRITE_PNG_COMPRESSION, IMWRITE_PNG_STRATEGY, IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY, IMWRITE_WEBP_QUALITY = 16, 17, 2, 64


def cvtColor(pixels: Any, code: int) -> Any:
    return pixels[:, :, ::-1]


def imencode(suffix: str, pixels: Any, parameters: Any) -> tuple[bool, Any]:
    buffer = io.BytesIO()
    options = {".png": {"format": "PNG", "compress_level": 1}, ".webp": {"format": "WEBP", "lossless": True, "method": 0}}[suffix]
    Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1])).save(buffer, **options)
    return True, np.frombuffer(buffer.getvalue(), np.uint8)


def resize(pixels: Any, size: tuple[int, int], interpolation: int) -> Any:
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _draw(frame: Any, paint: Any) -> None:
    image = Image.fromarray(frame)
    paint(ImageDraw.Draw(image))
    frame[:] = np.asarray(image)


def rectangle(frame: Any, start: Any, end: Any, colour: Any, thickness: int) -> None:
    look = {"fill": colour} if thickness < 0 else {"outline": colour, "width": thickness}
    _draw(frame, lambda draw: draw.rectangle([*start, *end], **look))


def circle(frame: Any, centre: Any, radius: int, colour: Any, thickness: int) -> None:
    x, y = centre
    _draw(frame, lambda draw: draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour))


def putText(frame: Any, text: str, place: Any, font: int, scale: float, colour: Any, line: int) -> None:
    _draw(frame, lambda draw: draw.text((place[0], place[1] - 14 * scale), text, fill=colour, font_size=max(6.0, 24 * scale)))
