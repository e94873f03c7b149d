"""What the frozen vision tower made of screenshots: the same screenshot is not computed twice.

With five screenshots per prompt, four were there at the step before; and every attempt at a task begins with the same screen.
The tower is never adapted, so what it made stays true.

n visual tokens of an image · d hidden size
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

MB = 2**20


class VisionCache:
    """Features by picture, the least recently used dropped first.  Not safe for concurrent use.

    Args:
        model: A ``Qwen2VLForConditionalGeneration`` or ``Qwen2_5_VLForConditionalGeneration``.
        megabytes: Most memory that the features may take, on the model's device; 0 keeps none.
    """

    def __init__(self, model: Any, megabytes: float) -> None:
        self._model, self._budget = model, megabytes * MB
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self._bytes = 0
        self.hits = self.misses = 0

    def features(self, images: list[Any], pixel_values: Tensor, grids: Tensor) -> Tensor:
        """Visual tokens of ``images`` one after the other, [Σ n, d].

        Args:
            images: PIL images as the processor was given them.
            pixel_values: [Σ patches, values of a patch], in the order of ``images``.
            grids: [images, 3] (time, height, width) in patches.
        """
        found: dict[bytes, Tensor] = {}  # of this call: kept together even where the budget is less
        keys = [_key(image) for image in images]
        parts = pixel_values.split(grids.prod(-1).tolist())
        for key, part, grid in zip(keys, parts, grids, strict=True):
            if key in found:
                self.hits += 1
                continue
            found[key] = self._one(key, part, grid)
        return torch.cat([found[key] for key in keys])

    def _one(self, key: bytes, pixels: Tensor, grid: Tensor) -> Tensor:
        if key in self._kept:
            self.hits += 1
            self._kept.move_to_end(key)
            return self._kept[key]
        self.misses += 1
        made = self._model.model.get_image_features(pixels, grid[None])
        feature: Tensor = getattr(made, "pooler_output", made)[0]  # [n, d]
        if feature.nbytes <= self._budget:
            self._kept[key] = feature
            self._bytes += feature.nbytes
            while self._bytes > self._budget:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= dropped.nbytes
        return feature

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._bytes = 0


def _key(image: Any) -> bytes:
    digest = hashlib.blake2b(repr((image.mode, image.size)).encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()
