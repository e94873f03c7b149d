"""What of many short texts bears on another: BM25 (the library ``bm25s``), which needs no model and is the same on every machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

MOST_CHARACTERS = 4_000
"""Characters of a text that count."""
WORD = re.compile(r"\w+")


class Relevance:
    """An index over ``texts``; immutable, so threads may share it."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._index = _indexed([_words(text) for text in texts])

    def best(self, query: str, count: int) -> list[tuple[int, float]]:
        """(place in ``texts``, score) of the ``count`` most relevant ones, best first; of equals the later one, which is newer.

        Texts that share no word with the query are never among them.
        """
        wanted = sorted(set(_words(query)))
        if self._index is None or not wanted or count < 1:
            return []
        scores = [float(score) for score in self._index.get_scores(wanted)]
        order = sorted((i for i, score in enumerate(scores) if score > 0), key=lambda i: (-round(scores[i], 4), -i))
        return [(i, scores[i]) for i in order[:count]]


def alike(a: str, b: str) -> float:
    """The share of words that two texts have in common (Jaccard), in [0, 1]."""
    first, second = set(_words(a)), set(_words(b))
    return len(first & second) / len(first | second) if first or second else 1.0


def _words(text: str) -> list[str]:
    """Words and numbers in lower case: of short questions all of them tell something."""
    return WORD.findall(text[:MOST_CHARACTERS].lower())


def _indexed(texts: Sequence[list[str]]) -> Any:
    """An index of ``bm25s``; None if there is not one word."""
    if not any(texts):
        return None
    import bm25s  # only where there is experience

    index = bm25s.BM25(method="lucene", backend="numpy")
    index.index([words or [""] for words in texts], show_progress=False)
    return index
