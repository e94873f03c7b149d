"""Keys and values with room ahead, those of one row of a batch, and those of several prompts in one sequence.

b rows · k key-value heads · n tokens · e size of a head, of keys and values each its own
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

GROWTH, SHARE = 64, 8
"""A buffer grows by so many tokens at a time, or by this part of what it holds if that is more: else many steps would copy it all."""


class GrowingLayer(DynamicLayer):
    """A cache layer with room ahead: appending a token copies that token only."""

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None) -> None:
        super().__init__()
        self._used = 0
        if keys is not None and values is not None:
            self.lazy_initialization(keys, values)
            self.update(keys, values)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self._key_room, self._value_room = key_states[:, :, :0], value_states[:, :, :0]
        self.keys, self.values = self._key_room, self._value_room
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [b, k, n, e] and give all there is."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self._used + key_states.shape[2]
        if end > self._key_room.shape[2]:
            self._key_room = _roomier(self._key_room, key_states, self._used, end)
            self._value_room = _roomier(self._value_room, value_states, self._used, end)
        self._key_room[:, :, self._used : end] = key_states
        self._value_room[:, :, self._used : end] = value_states
        self._used = end
        self.keys, self.values = self._key_room[:, :, :end], self._value_room[:, :, :end]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self._used

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep only these rows, in this order."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows, in this order."""
        self._key_room = self._key_room.index_select(0, indices)
        self._value_room = self._value_room.index_select(0, indices)
        self.keys, self.values = self._key_room[:, :, : self._used], self._value_room[:, :, : self._used]


def _roomier(room: Tensor, like: Tensor, used: int, end: int) -> Tensor:
    b, k, _, e = like.shape
    larger = like.new_empty(b, k, end + max(GROWTH, used // SHARE), e)
    if used:
        larger[:, :, :used] = room[:, :, :used]
    return larger


def row_of(cache: Any, row: int, mask: Tensor) -> DynamicCache:
    """A copy of one row's keys and values, without its padding.  ``mask`` [b, n], 0 where there is padding."""
    own = DynamicCache()
    at = mask[row].nonzero()[:, 0]
    for layer in cache.layers:
        index = at.to(layer.keys.device)
        keys, values = (part[row : row + 1][:, :, index] for part in (layer.keys, layer.values))
        own.layers.append(GrowingLayer(keys, values))
    return own


def packed(caches: Sequence[Any]) -> Any:
    """The keys and values of caches of one row each, one after the other in one row; several are used up: their layers are taken."""
    if len(caches) == 1:
        return caches[0]
    whole = DynamicCache()
    for parts in zip(*(cache.layers for cache in caches), strict=True):
        keys, values = (torch.cat([getattr(part, name) for part in parts], dim=2) for name in ("keys", "values"))
        whole.layers.append(GrowingLayer(keys, values))
        for part in parts:
            part.keys = part.values = part._key_room = part._value_room = None
    return whole


def columns_of(cache: Any, columns: Tensor) -> DynamicCache:
    """A copy of these columns of a cache of one row, [n]."""
    own = DynamicCache()
    for layer in cache.layers:
        index = columns.to(layer.keys.device)
        own.layers.append(GrowingLayer(layer.keys[:, :, index], layer.values[:, :, index]))
    return own
