"""Qwen2-VL's image processor plus one declared step: a coordinate tint.

A network this small does not find out by itself where on the screen a patch lies.  Before patches are cut, the screenshot is
blended with a ramp that encodes the position: red rises from left to right, green from top to bottom, blue falls from left to
right.  The share of the ramp is ``coordinate_tint`` in the checkpoint's ``preprocessor_config.json``; 0 is Qwen2-VL's own processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil


def position_ramp(height: int, width: int) -> NDArray[np.float32]:
    """The ramp blended into a screenshot, [3, height, width], values 0-255: (x, y, 255 - x) scaled to the image."""
    x = np.broadcast_to(np.linspace(0.0, 255.0, width, dtype=np.float32), (height, width))
    y = np.broadcast_to(np.linspace(0.0, 255.0, height, dtype=np.float32)[:, None], (height, width))
    return np.stack([x, y, 255.0 - x])


class NanoImageProcessor(Qwen2VLImageProcessorPil):
    """``Qwen2VLImageProcessorPil`` that tints each image by position first (after resizing, before normalisation)."""

    coordinate_tint = 0.0

    def __init__(self, coordinate_tint: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.coordinate_tint = coordinate_tint

    def normalize(self, image: NDArray[Any], mean: Any, std: Any, **kwargs: Any) -> NDArray[Any]:  # type: ignore[override]
        """Tint the rescaled image, [3, H, W] in 0-1, then normalise."""
        if self.coordinate_tint:
            ramp = position_ramp(*image.shape[-2:]) / np.float32(255.0)
            image = (1.0 - self.coordinate_tint) * image + self.coordinate_tint * ramp
        return super().normalize(image, mean, std, **kwargs)
