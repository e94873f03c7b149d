"""Attention of new nodes below several prompts that stand in one sequence: of each tree's, to its own columns alone.

With one mask over the whole sequence every new token would meet the columns of all prompts, and grouped heads their keys copied out; on a
CPU that costs more than all the rest of the model.

H heads · k key-value heads · m new tokens · n columns of a prompt · e size of a head · u size of a head's values (mostly e)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "agentlab_trees"
"""Of the attention implementation."""

_now = threading.local()


@dataclass(frozen=True)
class Segment:
    """What the new nodes of one tree attend to.

    Attributes:
        rows: Of the new tokens, the first of this tree's and the first after them.
        prompt: Columns of its prompt, the first and the first after them.
        columns: Of its nodes that the new ones follow, and theirs, [N].
        mask: Added to the scores of these, [rows, N]; None: all are attended to.
    """

    rows: tuple[int, int]
    prompt: tuple[int, int]
    columns: Tensor
    mask: Tensor | None


@contextmanager
def own_attention(config: Any) -> Iterator[None]:
    """Let a model of this (text) configuration ask :func:`attend` while the block runs, unless its attention is another than sdpa."""
    before = config._attn_implementation
    if before == "sdpa":
        config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def segments(some: Sequence[Segment]) -> Iterator[None]:
    """What the next call of the model, in this thread, is made of."""
    _now.segments = some
    try:
        yield
    finally:
        _now.segments = None


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float | None = None, **more: Any
) -> tuple[Tensor, Tensor | None]:
    """[1, H, m, e] over [1, k, columns, e] and [1, k, columns, u] -> [1, m, H, u].

    Elsewhere than on a CPU, and without segments, it is that of transformers.
    """
    some: Sequence[Segment] | None = getattr(_now, "segments", None)
    if some is None or query.device.type != "cpu" or len(query) != 1:
        found: tuple[Tensor, Tensor | None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **more
        )
        return found
    out = query.new_empty(*query.shape[:3], value.shape[-1])
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    for segment in some:
        a, b = segment.rows
        out[0, :, a:b] = _of_one(query[0, :, a:b] * scale, key[0], value[0], segment)
    return out.transpose(1, 2).contiguous(), None


def _of_one(query: Tensor, key: Tensor, value: Tensor, segment: Segment) -> Tensor:
    """[H, m, e], scaled, over [k, columns, e] and [k, columns, u] -> [H, m, u]."""
    k, groups = len(key), len(query) // len(key)
    rows = query.reshape(k, -1, query.shape[-1])  # the heads of a group share keys: their rows stand below each other
    start, end = segment.prompt
    far = rows @ key[:, start:end].mT
    near = rows @ key[:, segment.columns].mT  # index_select would first copy a part of a larger buffer as a whole
    if segment.mask is not None:
        near += segment.mask.repeat(groups, 1)
    weights = torch.cat([far, near], -1).softmax(-1, dtype=torch.float32).to(value.dtype)
    n = end - start
    found = weights[..., :n] @ value[:, start:end] + weights[..., n:] @ value[:, segment.columns]
    return found.reshape(*query.shape[:2], -1)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
