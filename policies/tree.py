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
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from policies.adapters.base import HeadAdapter
from policies.head import HeadTap
from policies.tree_attention import Segment, segments

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
        roots: The prompts, in the order in which the model's cache has them.
        mask_dtype: Of the additive attention mask.
    """

    def __init__(
        self, call: Callable[[Tensor, Tensor, Tensor], Tensor], tap: HeadTap, roots: Sequence[Root], mask_dtype: torch.dtype
    ) -> None:
        self._call, self._tap, self._dtype = call, tap, mask_dtype
        self._columns = 0  # P + S
        self.trees: list[TokenTree] = []
        for root in roots:
            self.trees.append(TokenTree(self, root, self._columns))
            self._columns += root.prompt_tokens

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
            logits = self._call(torch.tensor([ids]), torch.tensor([places]), mask[None, None])[0].float().split(sizes)
        hidden = self._tap.hidden.pop().split(sizes) if self._tap.hidden else ()
        for (tree, _), rows in zip(asked, hidden, strict=False):
            tree.captured.append(rows)
        return [Grown(tree.newest(m), rows) for (tree, _), m, rows in zip(asked, sizes, logits, strict=True)]

    def run(self, works: Sequence[Work[T]]) -> list[T]:
        """Results of one work per tree; nodes that they ask for at the same time are computed in one call."""
        results: dict[int, T] = {}
        answers: dict[int, Any] = dict.fromkeys(range(len(works)))  # a generator is begun with None
        while answers:
            asked: list[tuple[int, Growth]] = []
            for at, answer in answers.items():
                try:
                    asked.append((at, works[at].send(answer)))
                except StopIteration as end:
                    results[at] = end.value
            grown = self.grow([(self.trees[at], growth) for at, growth in asked]) if asked else []
            answers = {at: answer for (at, _), answer in zip(asked, grown, strict=True)}
        return [results[at] for at in range(len(works))]


class TokenTree:
    """Nodes below one prompt of a forest, numbered from 0.

    Attributes:
        root: The prompt.
        passes: Rows computed, without the prompt's.
        captured: What the head received, [m, d] of each growth; the prompt's last position stands first.
    """

    def __init__(self, forest: Forest, root: Root, start: int) -> None:
        self._forest, self._start, self.root = forest, start, root
        self.passes = 0
        self.captured = [] if root.hidden is None else [root.hidden[None]]
        self._parents: list[int] = []
        self._tokens: list[int] = []
        self._depths: list[int] = []
        self._columns: list[int] = []
        self._lineage = torch.zeros(0, 0, dtype=torch.bool)  # [N, N]: does node i attend to node j

    def grow(self, parents: Sequence[int], tokens: Sequence[int]) -> Grown:
        """New nodes of this tree alone."""
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
        lineage = torch.zeros(old + m, old + m, dtype=torch.bool)
        lineage[:old, :old] = self._lineage
        for number, parent in enumerate(growth.parents, start=old):
            if parent != ROOT:
                lineage[number] |= lineage[parent]
            lineage[number, number] = True
        self._lineage = lineage
        self._parents += growth.parents
        self._tokens += growth.tokens
        self._columns += range(column, column + m)
        for parent in growth.parents:
            self._depths.append(1 if parent == ROOT else self._depths[parent] + 1)
        self.passes += m
        return [depth + self.root.position - 1 for depth in self._depths[old:]]

    def unmask(self, mask: Tensor, row: int) -> Segment:
        """Let the newest nodes, the rows of ``mask``, attend to what they follow; ``row``: of all new tokens, the first of these."""
        m, end, columns = len(mask), self._start + self.root.prompt_tokens, torch.tensor(self._columns)
        seen = torch.full((m, self.size), torch.finfo(mask.dtype).min, dtype=mask.dtype).masked_fill_(self._lineage[-m:], 0)
        mask[:, self._start : end] = 0
        mask[:, columns] = seen
        return Segment((row, row + m), (self._start, end), columns, seen)

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


def keeps_everything(config: Any) -> bool:
    """Whether every layer attends to all earlier tokens: only then keys and values can be cut and joined at will."""
    kinds = set(getattr(config, "layer_types", None) or {"full_attention"})
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return kinds == {"full_attention"} and (window is None or bool(getattr(config, "layer_types", None)))


def has_trees(config: Any) -> bool:
    """Whether a model of this (text) configuration takes a tree's mask: full attention, by a kernel that takes masks."""
    return keeps_everything(config) and getattr(config, "_attn_implementation", None) in ("sdpa", "eager")
