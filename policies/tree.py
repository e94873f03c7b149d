"""What can follow a prompt, as a tree: the prompt is read once, and every node of the tree costs one row of one pass.

A forest is one sequence of a batch of one: the prompts, then the nodes below them in the order in which they were asked for.  A node
attends to its own prompt and to its own ancestors only (an attention mask says which), at the position that its depth gives it.  So ten
continuations share the prompt's keys and values without ten copies of them, a branch can be left and another begun at any node, and
nodes of many trees are computed in one call.

m nodes of a call · N nodes of a tree so far · P tokens of all prompts · S nodes of all trees so far · V vocabulary · d hidden size
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from policies.adapters.base import HeadAdapter
from policies.head import HeadTap
from policies.tree_attention import NAME, Segment, segments

ROOT = -1
"""The prompt's end, where a reply begins."""


class Growth(NamedTuple):
    """New nodes that are asked for: ``tokens[i]`` after the node ``parents[i]``, an earlier one of these too (they are numbered from N)."""

    parents: Sequence[int]
    tokens: Sequence[int]


class Grown(NamedTuple):
    """The numbers of new nodes, and the logits after each, [m, V] float32."""

    numbers: list[int]
    logits: Tensor


T = TypeVar("T")
Work = Generator[Growth, Grown, T]
"""What is done with one tree, as it asks for nodes."""


@dataclass(frozen=True)
class Root:
    """A prompt that was read.

    Attributes:
        logits: After its last token, [V] float32.
        prompt_tokens: Its length.
        position: Of the first token of a reply.
        hidden: What the head received at its last token, [d]; None if nothing is captured.
        adapter: Of the head, for all nodes below.
    """

    logits: Tensor
    prompt_tokens: int
    position: int
    hidden: Tensor | None = None
    adapter: HeadAdapter | None = None


class Forest:
    """Trees below prompts that were read.

    Args:
        call: The model on m new tokens: (ids [1, m], positions [1, m], mask [1, 1, m, P + S + m]) -> logits [1, m, V].
        tap: Of the packed hooks on the head.
        trees: In the order in which the model's cache has them, of each its prompt and then its nodes.
        mask_dtype: Of the additive attention mask.
    """

    def __init__(
        self, call: Callable[[Tensor, Tensor, Tensor], Tensor], tap: HeadTap, trees: Sequence[TokenTree], mask_dtype: torch.dtype
    ) -> None:
        self._call, self._tap, self._dtype = call, tap, mask_dtype
        self._columns = 0  # P + S
        self.trees = list(trees)
        for tree in trees:
            self._columns = tree.plant(self, self._columns)

    def grow(self, asked: Sequence[tuple[TokenTree, Growth]]) -> list[Grown]:
        """New nodes of trees, in one call."""
        sizes = [len(growth.tokens) for _, growth in asked]
        mask = torch.full((sum(sizes), self._columns + sum(sizes)), torch.finfo(self._dtype).min, dtype=self._dtype)
        ids: list[int] = []
        places: list[int] = []
        adapters: list[HeadAdapter | None] = []
        parts: list[Segment] = []
        row = 0
        for (tree, growth), m in zip(asked, sizes, strict=True):
            places += tree.add(growth, self._columns + row)
            parts.append(tree.unmask(mask[row : row + m], row))
            ids += growth.tokens
            adapters += m * [tree.root.adapter]
            row += m
        self._columns += row
        self._tap.use(adapters)
        with segments(parts):
            logits = self._call(torch.tensor([ids]), torch.tensor([places]), mask[None, None])[0].float()
        # Copies: a view would keep what all trees got of this call, for as long as one of them needs its own.
        each = [rows.clone() for rows in logits.split(sizes)]
        hidden = [rows.clone() for rows in self._tap.hidden.pop().split(sizes)] if self._tap.hidden else []
        for (tree, _), rows in zip(asked, hidden, strict=False):
            tree.captured.append(rows)
        return [Grown(tree.newest(m), rows) for (tree, _), m, rows in zip(asked, sizes, each, strict=True)]

    def go(self, errands: Sequence[Errand[Any]], passes: int | None = None) -> None:
        """Let errands in these trees get on: what they ask for at the same time is computed in one call.

        Until all are done, or for so many calls at most; what has not been done then can be gone on with in another forest.
        """
        while (waiting := [errand for errand in errands if errand.asks is not None]) and passes != 0:
            grown = self.grow([(errand.tree, errand.asks) for errand in waiting if errand.asks is not None])
            for errand, answer in zip(waiting, grown, strict=True):
                errand.on(answer)
            passes = None if passes is None else passes - 1


class TokenTree:
    """Nodes below one prompt, numbered from 0.  It grows while it stands in a forest.

    Attributes:
        root: The prompt.
        passes: Rows computed, without the prompt's.
        captured: What the head received, [m, d] of each growth; the prompt's last position stands first.
    """

    def __init__(self, root: Root) -> None:
        self._forest: Forest | None = None
        self._start, self.root = 0, root
        self.passes = 0
        self.captured = [] if root.hidden is None else [root.hidden[None]]
        self._parents: list[int] = []
        self._tokens: list[int] = []
        self._depths: list[int] = []
        self._columns: list[int] = []

    def plant(self, forest: Forest, start: int) -> int:
        """Put it into a forest whose sequence has its prompt, and then its nodes, from column ``start`` on; the column after them."""
        first = start + self.root.prompt_tokens
        self._forest, self._start, self._columns = forest, start, list(range(first, first + self.size))
        return first + self.size

    def uproot(self) -> None:
        """Take it out of its forest, which is over; else they would hold each other, and with them the keys and values of all trees."""
        self._forest = None

    def columns(self) -> Tensor:
        """Where the sequence has its prompt, and then its nodes, [P + N]."""
        return torch.tensor([*range(self._start, self._start + self.root.prompt_tokens), *self._columns])

    def grow(self, parents: Sequence[int], tokens: Sequence[int]) -> Grown:
        """New nodes of this tree alone."""
        assert self._forest is not None
        return self._forest.grow([(self, Growth(parents, tokens))])[0]

    def alone(self, work: Work[T]) -> T:
        """The result of a work with this tree, all other trees of the forest resting."""
        answer: Any = None
        while True:
            try:
                answer = self.grow(*work.send(answer))
            except StopIteration as end:
                result: T = end.value
                return result

    def add(self, growth: Growth, column: int) -> list[int]:
        """Number new nodes, the first of them in this column of the sequence; their positions."""
        old, m = self.size, len(growth.tokens)
        self._parents += growth.parents
        self._tokens += growth.tokens
        self._columns += range(column, column + m)
        for parent in growth.parents:
            self._depths.append(1 if parent == ROOT else self._depths[parent] + 1)
        self.passes += m
        return [depth + self.root.position - 1 for depth in self._depths[old:]]

    def unmask(self, mask: Tensor, row: int) -> Segment:
        """Let the newest nodes, the rows of ``mask``, attend to what they follow; ``row``: of all new tokens, the first of these."""
        m, end = len(mask), self._start + self.root.prompt_tokens
        lines = [self._line(node) for node in self.newest(m)]
        place = {node: at for at, node in enumerate(dict.fromkeys(node for line in lines for node in line))}
        columns = torch.tensor([self._columns[node] for node in place])
        seen = torch.full((m, len(place)), torch.finfo(mask.dtype).min, dtype=mask.dtype)
        for at, line in enumerate(lines):
            seen[at, torch.tensor([place[node] for node in line])] = 0
        mask[:, self._start : end] = 0
        mask[:, columns] = seen
        return Segment((row, row + m), (self._start, end), columns, seen if m > 1 else None)

    def newest(self, m: int) -> list[int]:
        """The numbers of the last m nodes."""
        return list(range(self.size - m, self.size))

    @property
    def size(self) -> int:
        """N."""
        return len(self._tokens)

    def parent(self, node: int) -> int:
        """The node above."""
        return self._parents[node]

    def path(self, node: int) -> list[int]:
        """The tokens from the prompt's end to ``node``, its own included."""
        return [self._tokens[number] for number in self._line(node)]

    def depth(self, node: int) -> int:
        """Tokens of :meth:`path`."""
        return 0 if node == ROOT else self._depths[node]

    def hidden(self, node: int) -> Tensor:
        """What the head received where each token after the prompt up to one below ``node`` was chosen, [depth + 1, d]."""
        every = torch.cat(self.captured)
        return every[torch.tensor([0, *(number + 1 for number in self._line(node))], device=every.device)]

    def _line(self, node: int) -> list[int]:
        found = []
        while node != ROOT:
            found.append(node)
            node = self._parents[node]
        return found[::-1]


class Errand(Generic[T]):
    """A work in one tree, and how far it has come.

    Attributes:
        tree: In which it asks for nodes.
        asks: For what, now; None when it is done.
        result: Then.
    """

    def __init__(self, tree: TokenTree, work: Work[T]) -> None:
        self.tree, self._work = tree, work
        self.asks: Growth | None = None
        self.result: T | None = None
        self.on(None)

    def on(self, answer: Any) -> None:
        """What was asked for; None to begin with."""
        try:
            self.asks = self._work.send(answer)
        except StopIteration as end:
            self.asks, self.result = None, end.value


def keeps_everything(config: Any) -> bool:
    """Whether every layer attends to all earlier tokens: only then keys and values can be cut and joined at will."""
    kinds = set(getattr(config, "layer_types", None) or {"full_attention"})
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return kinds == {"full_attention"} and (window is None or bool(getattr(config, "layer_types", None)))


def has_trees(config: Any) -> bool:
    """Whether a model of this (text) configuration takes a tree's mask: full attention, by a kernel that takes masks.

    The answer is the same while a tree of another session grows, which has the attention of :mod:`policies.tree_attention`.
    """
    return keeps_everything(config) and getattr(config, "_attn_implementation", None) in ("sdpa", "eager", NAME)
