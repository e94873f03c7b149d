"""What the frozen vision tower made of screenshots: the same screenshot is not computed twice.

With five screenshots per prompt, four were there at the step before; and every attempt at a task begins with the same screen.
The tower is never adapted, so what it made stays true.

n visual tokens of an image · d hidden size · a layers of the tower that also feed the language model (DeepStack; 0 but for Qwen3-VL)
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

MB = 2**20


@dataclass
class ImageOutputs(ModelOutput):
    """The tower's output as the models take it: per image [n, d], and the same of each layer that feeds the language model."""

    pooler_output: tuple[Tensor, ...] | None = None
    deepstack_features: list[tuple[Tensor, ...]] | None = None


@dataclass(frozen=True)
class Features:
    """The features of several images, one [1 + a, n, d] each."""

    images: tuple[Tensor, ...]

    def as_outputs(self) -> dict[str, Any]:
        """What the model's ``forward`` takes as ``mm_encoder_outputs``."""
        layers = range(1, self.images[0].shape[0])
        return {
            "image": ImageOutputs(
                pooler_output=tuple(image[0] for image in self.images),
                deepstack_features=[tuple(image[layer] for image in self.images) for layer in layers],
            )
        }


class VisionCache:
    """Features by picture, the least recently used dropped first.  Not safe for concurrent use.

    Args:
        model: A vision-language model of Qwen's in transformers.
        megabytes: Most memory that the features may take, on the model's device, but for what sessions in flight need; 0 keeps none.
    """

    def __init__(self, model: Any, megabytes: float) -> None:
        self._model, self._budget = model, megabytes * MB
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self._bytes = 0
        self.hits = self.misses = 0

    def features(self, images: list[Any], grids: Tensor, pixels: Callable[[list[Any]], Tensor], *, in_flight: int = 0) -> Features:
        """Visual tokens of ``images``, in order.

        Args:
            images: PIL images at their final size.
            grids: [images, 3] (time, height, width) in patches.
            pixels: Makes [Σ patches, values of a patch] of those images that are not remembered.
            in_flight: Pictures that the sessions in flight show together: there is room for so many.
        """
        found: dict[bytes, Tensor] = {}  # of this call: kept together even where the budget is less
        keys = [_key(image) for image in images]
        missing: dict[bytes, int] = {}
        for at, key in enumerate(keys):
            if key in found or key in missing:
                self.hits += 1
            elif key in self._kept:
                self.hits += 1
                self._kept.move_to_end(key)
                found[key] = self._kept[key]
            else:
                self.misses += 1
                missing[key] = at
        if missing:
            grid = grids[list(missing.values())]
            parts = pixels([images[at] for at in missing.values()]).split(grid.prod(-1).tolist())
            for key, part, one in zip(missing, parts, grid, strict=True):
                found[key] = self._one(key, part, one, in_flight)
        return Features(tuple(found[key] for key in keys))

    def _one(self, key: bytes, pixels: Tensor, grid: Tensor, in_flight: int) -> Tensor:
        """[1 + a, n, d]: what stands in the image's place, and what the first layers add to it."""
        made = self._model.model.get_image_features(pixels, grid[None], return_dict=True)
        feature = torch.stack([made.pooler_output[0], *(layer[0] for layer in getattr(made, "deepstack_features", None) or ())])
        budget = self._budget and max(self._budget, min(in_flight * feature.nbytes, _quarter(feature.device)))
        if feature.nbytes <= budget:
            self._kept[key] = feature
            self._bytes += feature.nbytes
            while self._bytes > budget:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= dropped.nbytes
        return feature

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._bytes = 0


def _quarter(device: torch.device) -> int:
    """Bytes that may be taken of a device without being asked for: a quarter of a GPU, nothing of the host."""
    return torch.cuda.get_device_properties(device).total_memory // 4 if device.type == "cuda" else 0


def _key(image: Any) -> bytes:
    digest = hashlib.blake2b(repr((image.mode, image.size)).encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()
