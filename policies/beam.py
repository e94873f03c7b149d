"""The most probable reply that has not been tried: best-first beam search over a token tree (Meister, Vieira and Cotterell 2020).

Log-probabilities only fall as a reply grows, so the most probable prefixes are followed first, at most ``width`` of each length, until no
unfinished prefix is as probable as the best finished reply that counts: what a beam search of this width finds, for fewer passes.
Where the beam holds nothing that counts, it is widened; what was computed stays.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from policies.tree import ROOT, TokenTree

WIDENED = 4
"""A beam without anything new becomes at most this many times as wide."""

SPECULATION = 3.0
"""Prefixes computed along with the most probable one are less probable by a factor of e^3 at most: a row more in a pass is cheap, but
those further down are rarely needed."""


@dataclass(frozen=True)
class Found:
    """A finished reply.

    Attributes:
        tokens: The end included.
        logprobs: Of each token.
        node: Where its last token was chosen.
    """

    tokens: list[int]
    logprobs: list[float]
    node: int

    @property
    def logprob(self) -> float:
        return sum(self.logprobs)


class BestFirst:
    """One search.

    Args:
        tree: Whose prompt was read.
        width: Prefixes of one length that are followed.
        limit: Tokens of a reply at most, its end included.
        stops: Tokens that end a reply.
        counts: Whether a finished reply counts.
    """

    def __init__(
        self, tree: TokenTree, *, width: int, limit: int, stops: frozenset[int], counts: Callable[[list[int]], bool]
    ) -> None:
        self._tree, self._width, self._limit, self._counts = tree, width, limit, counts
        self._stops = torch.tensor(sorted(stops), device=tree.root.logits.device)
        self._chosen: dict[int, list[float]] = {ROOT: []}  # log-probabilities of the tokens up to each node
        self._waiting: list[tuple[float, int, int, int, float]] = []  # -total, a number that breaks ties, parent, token, logprob
        self._skipped: list[tuple[float, int, int, int, float]] = []  # of lengths that had their width
        self._numbers = itertools.count()
        self._followed: Counter[int] = Counter()
        self.best: Found | None = None
        """The most probable reply that counts."""
        self.anything: Found | None = None
        """The most probable one of all."""
        self._spread(ROOT, tree.root.logits)

    def run(self) -> Found | None:
        """The most probable reply that counts; None if there is none in the widest beam."""
        wide = self._width
        while True:
            while batch := list(self._next(wide)):
                nodes, logits = self._tree.grow([parent for _, _, parent, _, _ in batch], [token for *_, token, _ in batch])
                for node, (_, _, parent, _, logprob), row in zip(nodes, batch, logits, strict=True):
                    self._chosen[node] = [*self._chosen[parent], logprob]
                    self._spread(node, row)
            if self.best is not None or wide >= WIDENED * self._width or not self._skipped:
                return self.best
            wide *= 2
            self._waiting, self._skipped = self._skipped, []
            heapq.heapify(self._waiting)

    def _next(self, wide: int) -> Iterator[tuple[float, int, int, int, float]]:
        """The prefixes to compute now: the most probable ones."""
        top: float | None = None
        found = 0
        while self._waiting and found < self._width:
            total = -self._waiting[0][0]
            if (self.best is not None and total <= self.best.logprob) or (top is not None and total < top - SPECULATION):
                return
            prefix = heapq.heappop(self._waiting)
            depth = self._tree.depth(prefix[2]) + 1
            if self._followed[depth] >= wide:
                self._skipped.append(prefix)
                continue
            self._followed[depth] += 1
            top = total if top is None else top
            found += 1
            yield prefix

    def _spread(self, node: int, logits: Tensor) -> None:
        """What can follow ``node``: replies that end here, and longer prefixes."""
        logp = logits.log_softmax(-1)  # [V]
        before = self._chosen[node]
        for stop, logprob in zip(self._stops.tolist(), logp[self._stops].tolist(), strict=True):
            self._finish(node, stop, [*before, logprob])
        if len(before) + 2 > self._limit:
            return
        logp[self._stops] = -torch.inf
        values, tokens = logp.topk(min(2 * self._width, len(logp)))
        total = sum(before)
        for logprob, token in zip(values.tolist(), tokens.tolist(), strict=True):
            if logprob == -torch.inf or (self.best is not None and total + logprob <= self.best.logprob):
                break
            heapq.heappush(self._waiting, (-total - logprob, next(self._numbers), node, token, logprob))

    def _finish(self, node: int, stop: int, logprobs: list[float]) -> None:
        total = sum(logprobs)
        if self.best is not None and total <= self.best.logprob:
            return
        found = Found([*self._tree.path(node), stop], logprobs, node)
        if self.anything is None or total > self.anything.logprob:
            self.anything = found
        if self._counts(found.tokens):
            self.best = found
