"""Batched replies of the bundled policy while it is being trained or tested, through the fast forward pass.

In use, the policy is an ordinary checkpoint behind :mod:`policies.engine`; this is for the thousands of replies that training needs
(which mistakes does it make?) without paying for a general ``generate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from policies.nano.data import positions
from policies.nano.fast import FastForward, rotate

Asked = tuple[list[int], NDArray[np.uint8]]
"""(prompt ids with the image expanded, screenshot [H, W, 3])."""


@torch.no_grad()
def replies(
    network: FastForward,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Asked],
    *,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    max_new_tokens: int = 96,
    batch_size: int = 32,
) -> list[str]:
    """One reply for each prompt, greedy at temperature 0; in the order of ``asked``."""
    order = sorted(range(len(asked)), key=lambda i: len(asked[i][0]))
    out = [""] * len(asked)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        ids = _Decoder(network, tokenizer, [asked[i] for i in rows], max_new_tokens).run(temperature, generator)
        for i, reply in zip(rows, ids, strict=True):
            out[i] = str(tokenizer.decode(reply, skip_special_tokens=True))
    return out


class _Decoder:
    """Keys and values of one batch, right-padded; each row writes at its own length."""

    def __init__(self, network: FastForward, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Asked], new: int) -> None:
        self.net, self.text, self.new = network, network.model.model.language_model, new
        self.end: Any = tokenizer.convert_tokens_to_ids("<|im_end|>")
        image = network.model.config.image_token_id
        self.lengths = torch.tensor([len(prompt) for prompt, _ in asked])
        self.width = int(self.lengths.max())
        self.ids = torch.zeros(len(asked), self.width, dtype=torch.int64)
        self.place = torch.zeros(3, len(asked), self.width + new, dtype=torch.int64)
        starts = []
        for row, (prompt, _) in enumerate(asked):
            self.ids[row, : len(prompt)] = torch.tensor(prompt)
            starts.append(prompt.index(image))
            self.place[:, row] = torch.from_numpy(positions(starts[-1], self.width + new))
        self.starts = torch.tensor(starts)
        self.screens = torch.from_numpy(np.stack([screen for _, screen in asked]))
        self.cache: list[tuple[Tensor, Tensor]] = []

    def run(self, temperature: float, generator: torch.Generator | None) -> list[list[int]]:
        logits = self._prompt()
        done = torch.zeros(len(self.ids), dtype=torch.bool)
        written: list[Tensor] = []
        for number in range(self.new):
            if temperature > 0:
                token = torch.multinomial(F.softmax(logits / temperature, -1), 1, generator=generator).squeeze(1)
            else:
                token = logits.argmax(-1)
            token = torch.where(done, self.end, token)
            written.append(token)
            done |= token == self.end
            if bool(done.all()) or number == self.new - 1:
                break
            logits = self._next(token, self.lengths + number)
        rows = torch.stack(written, 1).tolist()
        return [row[: row.index(self.end)] if self.end in row else row for row in rows]

    def _prompt(self) -> Tensor:
        """Fill the cache; logits [B, V] after the last token of each prompt."""
        visual, _ = self.net.vision(self.screens)
        x = self.net.embed(self.ids, self.starts, visual)
        cos, sin = self._rope(self.place[:, :, : self.width])
        for layer in self.text.layers:
            y = layer.input_layernorm(x)
            q, k, v = self._qkv(layer, y, cos, sin)
            x = self._rest(layer, x, F.scaled_dot_product_attention(q, k, v, is_causal=True))
            room = (0, 0, 0, self.new)
            self.cache.append((F.pad(k, room), F.pad(v, room)))
        last = x[torch.arange(len(x)), self.lengths - 1]
        out: Tensor = self.net.model.lm_head(self.text.norm(last))
        return out

    def _next(self, token: Tensor, at: Tensor) -> Tensor:
        """Logits [B, V] after ``token`` [B], which stands at index ``at`` [B] of its row."""
        x = self.text.embed_tokens(token)[:, None]
        rows = torch.arange(len(x))
        cos, sin = self._rope(self.place[:, rows, at][..., None])
        seen = (torch.arange(self.width + self.new)[None] <= at[:, None])[:, None, None]
        for layer, (keys, values) in zip(self.text.layers, self.cache, strict=True):
            q, k, v = self._qkv(layer, layer.input_layernorm(x), cos, sin)
            keys[rows, :, at], values[rows, :, at] = k[:, :, 0], v[:, :, 0]
            x = self._rest(layer, x, F.scaled_dot_product_attention(q, keys, values, attn_mask=seen))
        out: Tensor = self.net.model.lm_head(self.text.norm(x[:, 0]))
        return out

    def _rope(self, place: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self.text.rotary_emb(torch.zeros(1), place)
        return cos[:, None], sin[:, None]

    def _qkv(self, layer: Any, y: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (self.net.project(p, y) for p in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj))
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    @staticmethod
    def _rest(layer: Any, x: Tensor, attended: Tensor) -> Tensor:
        x = x + layer.self_attn.o_proj(attended.transpose(1, 2).flatten(2))
        return x + layer.mlp(layer.post_attention_layernorm(x))
