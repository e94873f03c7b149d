"""Keys and values of prompts read before: what two prompts begin with alike is read once.

Only the head is adapted (ROSA), so the keys and values of a text never change, whatever a session has learned: those of the earlier
turns of a conversation, of a question asked again, and of the worked examples that many questions share stay valid for ever.

L layers · k key-value heads · n tokens · e size of a head
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

MB = 2**20
GROWTH = 64
"""Tokens by which a buffer grows at a time: appended to one by one, every step would copy the whole cache."""


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
            self._key_room = _roomier(self._key_room, key_states, self._used, end + GROWTH)
            self._value_room = _roomier(self._value_room, value_states, self._used, end + GROWTH)
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


def _roomier(room: Tensor, like: Tensor, used: int, size: int) -> Tensor:
    b, k, _, e = like.shape
    larger = like.new_zeros(b, k, size, e)
    if used:
        larger[:, :, :used] = room[:, :, :used]
    return larger


@dataclass(frozen=True)
class _Entry:
    """What is kept of one prompt: its tokens [n], and keys and values [L, k, n, e]."""

    tokens: Tensor
    keys: Tensor
    values: Tensor

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


class PrefixCache:
    """Prompts by what they begin with, the least recently used dropped first.  Not safe for concurrent use.

    Args:
        megabytes: Most memory, on the model's device; 0 keeps none.
    """

    def __init__(self, megabytes: float) -> None:
        self._budget = megabytes * MB
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._bytes = 0
        self._next = 0
        self.read = self.reused = 0
        """Prompt tokens computed, and taken from here."""

    def match(self, tokens: Tensor) -> tuple[_Entry | None, int]:
        """The entry that agrees with ``tokens`` [n] longest, and on how many: at most n − 1, for the last one has to be read."""
        best, length, found = None, 0, -1
        for key, entry in self._entries.items():
            n = min(len(entry.tokens), len(tokens) - 1)
            if n <= length:
                continue
            different = (entry.tokens[:n] != tokens[:n]).nonzero()
            common = int(different[0, 0]) if len(different) else n
            if common > length:
                best, length, found = entry, common, key
        if best is not None:
            self._entries.move_to_end(found)
        return best, length

    def add(self, tokens: Tensor, keys: Tensor, values: Tensor) -> None:
        """Keep a prompt's keys and values, [L, k, n, e]; an entry that it continues goes."""
        entry = _Entry(tokens, keys, values)
        if entry.nbytes > self._budget:
            return
        for key, other in list(self._entries.items()):
            n = len(other.tokens)
            if n <= len(tokens) and torch.equal(other.tokens, tokens[:n]):
                self._drop(key)
        self._entries[self._next] = entry
        self._next += 1
        self._bytes += entry.nbytes
        while self._bytes > self._budget:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: int) -> None:
        self._bytes -= self._entries.pop(key).nbytes

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._bytes = 0


def left_padded(parts: list[tuple[_Entry | None, int]], layers: int) -> DynamicCache:
    """One batch's cache [b, k, P, e] per layer out of the first n tokens of each row's entry, padded on the left to P = max n."""
    cache = DynamicCache()
    longest = max(n for _, n in parts)
    some = next((entry for entry, n in parts if entry is not None and n), None)
    if some is None:
        cache.layers = [GrowingLayer() for _ in range(layers)]
        return cache
    _, k, _, e = some.keys.shape
    for layer in range(layers):
        keys, values = (some.keys.new_zeros(len(parts), k, longest, e) for _ in range(2))
        for row, (entry, n) in enumerate(parts):
            if entry is not None and n:
                keys[row, :, longest - n :] = entry.keys[layer, :, :n]
                values[row, :, longest - n :] = entry.values[layer, :, :n]
        cache.layers.append(GrowingLayer(keys, values))
    return cache
