"""Keys and values of prompts read before: what two prompts begin with alike is read once.

Only the head is adapted (ROSA), so the keys and values of a text never change, whatever a session has learned: those of the earlier
turns of a conversation, of a question asked again, and of the worked examples that many questions share stay valid for ever.

L layers · k key-value heads · n tokens · e size of a head
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from policies.growing import GrowingLayer

MB = 2**20
PADDING = 256
"""Tokens of padding that are cheaper than another call of the model."""
MOST = 4
"""Times its memory, which the prompts of sessions in flight may take."""
ALIKE = 0.75
"""Rows at least this share as long as the longest are read together with it."""


@dataclass(frozen=True)
class Entry:
    """What is kept of one prompt: its tokens [n], and keys and values [L, k, n, e], each of its own k and e (latent attention)."""

    tokens: Tensor
    keys: Tensor
    values: Tensor

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


Part = tuple[Entry | None, int]
"""Where a prompt's first tokens were read before, and how many of them."""


class PrefixCache:
    """Prompts by what they begin with, the least recently used dropped first.  Whether one is there may be asked from any thread.

    Args:
        megabytes: Most memory, on the model's device; 0 keeps none.
    """

    def __init__(self, megabytes: float) -> None:
        self._lock = threading.RLock()
        self._budget = megabytes * MB
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._bytes = 0
        self._next = 0
        self.read = self.reused = 0
        """Prompt tokens computed, and taken from here."""

    def match(self, tokens: Tensor) -> Part:
        """The entry that agrees with ``tokens`` [n] longest, and on how many: at most n − 1, for the last one has to be read."""
        best, length, found = None, 0, -1
        with self._lock:
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

    def add(self, tokens: Tensor, keys: Tensor, values: Tensor, *, in_flight: int = 0) -> Entry:
        """Keep a prompt's keys and values, [L, k, n, e], if they fit; an entry that it continues goes.

        ``in_flight``: so many of the newest stay, up to :data:`MOST` times the memory: one per session that will come back to its own.
        """
        entry = Entry(tokens, keys, values)
        if entry.nbytes > self._budget:
            return entry
        with self._lock:
            for key, other in list(self._entries.items()):
                n = len(other.tokens)
                if n <= len(tokens) and torch.equal(other.tokens, tokens[:n]):
                    self._drop(key)
            self._entries[self._next] = entry
            self._next += 1
            self._bytes += entry.nbytes
            while self._bytes > self._budget and (len(self._entries) > in_flight or self._bytes > MOST * self._budget):
                self._drop(next(iter(self._entries)))
        return entry

    def _drop(self, key: int) -> None:
        self._bytes -= self._entries.pop(key).nbytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0


class ReadAlone:
    """The last prompts that were each read whole and in a pass of their own: what comes after them has the same digits whoever else is
    there, and whether they were read just now or before.  Not safe for concurrent use.

    Args:
        megabytes: Most memory, on the model's device.
    """

    def __init__(self, megabytes: float) -> None:
        self._budget = megabytes * MB
        self._entries: OrderedDict[tuple[int, ...], Entry] = OrderedDict()

    def of(self, tokens: Tensor, read: Callable[[Tensor], Entry]) -> Entry:
        """Keys and values of exactly these ``tokens`` [n], by ``read`` if they are not there."""
        key = tuple(tokens.tolist())
        entry = self._entries.get(key) or read(tokens)
        self._entries[key] = entry
        self._entries.move_to_end(key)
        while sum(one.nbytes for one in self._entries.values()) > self._budget:
            self._entries.popitem(last=False)
        return entry

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


def longest_alike(unread: Sequence[int]) -> list[int]:
    """The rows to read by themselves first, out of the ``unread`` tokens of each row of a batch; empty: read all together.

    In one batch every row costs as much as the longest, padding being computed like text: one new question among many that were read
    before would cost as much as if nobody's had been.
    """
    longest = max(unread)
    if len(unread) * longest - sum(unread) < max(PADDING, sum(unread) // 2):
        return []
    return [row for row, n in enumerate(unread) if n >= ALIKE * longest]


def left_padded(parts: Sequence[Part], layers: int) -> DynamicCache:
    """One batch's cache [b, k, P, e] per layer out of the first n tokens of each row's entry, padded on the left to P = max n."""
    cache = DynamicCache()
    longest = max(n for _, n in parts)
    some = next((entry for entry, n in parts if entry is not None and n), None)
    if some is None:
        cache.layers = [GrowingLayer() for _ in range(layers)]
        return cache
    for layer in range(layers):
        keys, values = (kept.new_zeros(len(parts), kept.shape[1], longest, kept.shape[3]) for kept in (some.keys, some.values))
        for row, (entry, n) in enumerate(parts):
            if entry is not None and n:
                keys[row, :, longest - n :] = entry.keys[layer, :, :n]
                values[row, :, longest - n :] = entry.values[layer, :, :n]
        cache.layers.append(GrowingLayer(keys, values))
    return cache
