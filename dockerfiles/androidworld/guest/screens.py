"""A frame as bytes for the wire, without loss."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from guest.errors import GuestError

_PARAMETERS = {
    # Three times as fast as the library's defaults for pictures of screens, and hardly larger.
    "png": (".png", [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]),
    # A quality above 100 means lossless.
    "webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
}
FORMATS = (*_PARAMETERS, "raw")
MEDIA_TYPES = {"png": "image/png", "webp": "image/webp", "raw": "application/octet-stream"}


def encode(pixels: Any, image_format: str) -> bytes:
    """``pixels``, uint8 RGB of shape [height, width, 3], as a PNG or WebP file, or "raw": the array's bytes, row by row.

    Raw is several times as large and as quick: the right choice where server and client are on one machine.

    Raises:
        GuestError: bad_request for an unknown format, internal if the encoder fails.
    """
    if image_format == "raw":
        return np.ascontiguousarray(pixels, dtype=np.uint8).tobytes()
    if image_format not in _PARAMETERS:
        raise GuestError("bad_request", f"There is no image format {image_format!r}.", known=list(FORMATS))
    suffix, parameters = _PARAMETERS[image_format]
    done, data = cv2.imencode(suffix, cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR), parameters)
    if not done:
        raise GuestError("internal", f"The frame could not be encoded as {image_format}.")
    return data.tobytes()


def is_drawn(pixels: Any) -> bool:
    """False for a picture of a single colour, every pixel looked at: switched off, not drawn yet, or an empty page of an application."""
    picture = np.asarray(pixels)
    if picture.ndim != 3 or not picture.size:
        return False
    # A sample decides nearly always, in a hundredth of the time; only where it is of one colour is the whole picture looked at.
    return any(bool((part != part[0, 0]).any()) for part in (picture[::16, ::16], picture))


def same(one: Any, other: Any, share: float = 0.0) -> bool:
    """Whether two pictures show the same: of one size, and at most ``share`` of their pixels differ."""
    if one is None or other is None or one.shape != other.shape:
        return False
    return np.array_equal(one, other) or (share > 0 and float(np.mean(np.any(one != other, axis=2))) <= share)
