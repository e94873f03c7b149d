"""Gymnasium spaces that Gymnasium does not have."""

from __future__ import annotations

from typing import Any

from gymnasium.spaces import Text


class AnyText(Text):
    """Text of any characters; Gymnasium's own ``Text`` must list its alphabet."""

    def __init__(self, max_length: int = 1_000_000) -> None:
        super().__init__(max_length=max_length, min_length=0)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return "".join(chr(c) for c in self.np_random.integers(32, 127, size=int(self.np_random.integers(0, 32))))

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length
