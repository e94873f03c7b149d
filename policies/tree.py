"""What can follow a prompt, as a tree: the prompt is read once, and every node of the tree costs one row of one pass.

The tree is one sequence of a batch of one: a node attends to the prompt and to its own ancestors only (an attention mask says which), at
the position that its depth gives it.  So ten continuations share the prompt's keys and values without ten copies of them, a branch
can be left and another begun at any node, and many nodes are computed in one call.

m nodes of a call · N nodes so far · P tokens of the prompt · V vocabulary · d hidden size
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from policies.head import HeadTap

ROOT = -1
"""The prompt's end, where a reply begins."""


class TokenTree:
    """Nodes below one prompt that was read.

    Args:
        call: The model on m new tokens: (ids [1, m], positions [1, m], mask [1, 1, m, P + N]) -> logits [1, m, V].
        tap: Of the hooks on the head; it captures what the head received at every position.
        logits: After the prompt's last token, [V].
        prompt_tokens: P.
        position: Of the first token of a reply.
        mask_dtype: Of the additive attention mask.
    """

    def __init__(
        self, call: Callable[[Tensor, Tensor, Tensor], Tensor], tap: HeadTap, logits: Tensor, *, prompt_tokens: int, position: int,
        mask_dtype: torch.dtype,
    ) -> None:  # fmt: skip
        self._call, self._tap, self._position, self._dtype = call, tap, position, mask_dtype
        self.prompt_tokens = prompt_tokens
        self.root = logits
        self.passes = 0
        """Rows computed, without the prompt's."""
        self._parents: list[int] = []
        self._tokens: list[int] = []
        self._depths: list[int] = []
        self._lineage = torch.zeros(0, 0, dtype=torch.bool)  # [N, N]: does node i attend to node j
        self._hidden = [tap.hidden.pop()[0]] if tap.hidden else []

    def grow(self, parents: Sequence[int], tokens: Sequence[int]) -> tuple[list[int], Tensor]:
        """New nodes: ``tokens[i]`` after the node ``parents[i]``, which may be an earlier one of these (they are numbered on from N).

        Returns their numbers, and the logits after each, [m, V] float32.
        """
        old, m = len(self._tokens), len(tokens)
        numbers = list(range(old, old + m))
        lineage = torch.zeros(old + m, old + m, dtype=torch.bool)
        lineage[:old, :old] = self._lineage
        for number, parent in zip(numbers, parents, strict=True):
            if parent != ROOT:
                lineage[number] |= lineage[parent]
            lineage[number, number] = True
        self._lineage = lineage
        self._parents += parents
        self._tokens += tokens
        for parent in parents:
            self._depths.append(1 if parent == ROOT else self._depths[parent] + 1)
        device = self.root.device
        places = torch.tensor(self._depths[old:]) + self._position - 1
        mask = torch.zeros(m, self.prompt_tokens + old + m, dtype=self._dtype)
        mask[:, self.prompt_tokens :].masked_fill_(~lineage[old:], torch.finfo(self._dtype).min)
        logits = self._call(torch.tensor([list(tokens)], device=device), places[None].to(device), mask[None, None].to(device))[0]
        if self._hidden:
            self._hidden.append(self._tap.hidden.pop()[0])
        self.passes += m
        return numbers, logits.float()

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
        every = torch.cat(self._hidden)  # the prompt's last position stands first
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
