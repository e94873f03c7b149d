"""Generation with a text-only chat model: the decode loop of :class:`policies.engine.Engine`, prompts as text, prefixes read once.

b rows of a batch · P tokens of their prompts that were read before · S tokens that were not · d hidden size
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from policies.base import NO_PASSES, Passes
from policies.causal.prefix import Entry, Part, PrefixCache, ReadAlone, left_padded, longest_alike
from policies.engine import Engine
from policies.generation import FirstPass, Prompt, Request
from policies.prompts import TextPrompts
from policies.tree import keeps_everything
from policies.tree_engine import is_out_of_memory

LONGEST_KEPT = 4096
"""Tokens of a prompt whose keys and values are kept while replies to it are scored; of a longer one they may not fit beside the pass."""


class TextEngine(Engine, TextPrompts):
    """One frozen causal language model shared by all sessions.

    Args:
        model: An ``AutoModelForCausalLM`` in eval mode.
        tokenizer: Its tokenizer, with a chat template.
        max_batch: Rows generated together at most.
        window_s: How long a batch waits for sessions that are known to be acting.
        prefix_cache_mb: Memory for keys and values of prompts that may be continued or asked again; up to four times as much where more
            sessions than fit into it have acted at a time; a quarter of it more for prompts whose replies are scored.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, max_batch: int = 16, window_s: float = 0.02, prefix_cache_mb: float = 1024.0
    ) -> None:
        self._share(model, tokenizer, max_batch, window_s)
        self.prefixes = PrefixCache(prefix_cache_mb if keeps_everything(model.config) else 0)
        self._prefix_budget = prefix_cache_mb
        self._scored = ReadAlone(prefix_cache_mb / 4)
        self._most_acting = 0

    def _ids(self, prompt: Prompt) -> Tensor:
        return torch.tensor(self._ids_of(prompt.text), dtype=torch.long)

    def _make_room(self) -> None:
        self.prefixes.clear()
        self._scored.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _first_pass(self, requests: Sequence[Request]) -> FirstPass:
        prompts = [self._ids(r.prompt) for r in requests]  # of each row [n]
        if not keeps_everything(self.model.config):
            return self._pass_over(prompts, [(None, 0)] * len(prompts))
        parts = [self.prefixes.match(ids) for ids in prompts]
        while rows := longest_alike([len(ids) - n for ids, (_, n) in zip(prompts, parts, strict=True)]):
            for row, entry in zip(rows, self._read([prompts[r] for r in rows], [parts[r] for r in rows]), strict=True):
                parts[row] = (entry, len(prompts[row]) - 1)
        return self._pass_over(prompts, parts)

    def _read(self, prompts: Sequence[Tensor], parts: Sequence[Part]) -> list[Entry]:
        """Keys and values of prompts of about one length, by a pass that stops below the head."""
        pass_ = self._pass_over(prompts, parts)
        self.model.model(
            **pass_.inputs, position_ids=pass_.positions, attention_mask=None if bool(pass_.mask.all()) else pass_.mask,
            use_cache=True, **{self._cache_argument: pass_.cache},
        )  # fmt: skip
        return self._remember(prompts, range(len(prompts)), pass_.mask, pass_.cache)

    def _pass_over(self, prompts: Sequence[Tensor], parts: Sequence[Part]) -> FirstPass:
        keep = keeps_everything(self.model.config)
        P, S = max(n for _, n in parts), max(len(ids) - n for ids, (_, n) in zip(prompts, parts, strict=True))
        b = len(prompts)
        ids, positions = torch.zeros(b, S, dtype=torch.long), torch.zeros(b, S, dtype=torch.long)
        mask = torch.zeros(b, P + S, dtype=torch.long)
        for row, (tokens, (_, n)) in enumerate(zip(prompts, parts, strict=True)):
            new = len(tokens) - n
            ids[row, S - new :] = tokens[n:]
            positions[row, S - new :] = torch.arange(n, len(tokens))
            mask[row, P - n : P] = 1
            mask[row, P + S - new :] = 1
            self.prefixes.read += new
            self.prefixes.reused += n
        config = self.model.config
        cache = left_padded(parts, config.num_hidden_layers) if keep else DynamicCache(config=config)
        lengths = torch.tensor([len(tokens) for tokens in prompts])
        return FirstPass(
            inputs={"input_ids": ids.to(self._input_device)},
            positions=positions.to(self._input_device),
            next_position=lengths.to(self._input_device),
            mask=mask.to(self._input_device),
            cache=cache,
            prompt_tokens=lengths.tolist(),
            after=(lambda: self._remember_new(prompts, parts, mask, cache)) if keep else None,
        )

    def _remember_new(self, prompts: Sequence[Tensor], parts: Sequence[Part], mask: Tensor, cache: Any) -> None:
        """Keep the keys and values of the prompts that were not there already."""
        new = [row for row, (tokens, (_, n)) in enumerate(zip(prompts, parts, strict=True)) if n < len(tokens) - 1]
        self._remember(prompts, new, mask, cache)

    def _remember(self, prompts: Sequence[Tensor], rows: Iterable[int], mask: Tensor, cache: Any) -> list[Entry]:
        """Keep the keys and values of these rows of a cache whose columns ``mask`` says to be text, not padding."""
        # Those that learn act no more, and the prompts that are read for them meanwhile are wanted all the same.
        self._most_acting = max(self._most_acting, self.batcher.acting)
        kept = []
        for row in rows:
            at = mask[row].nonzero()[:, 0].to(cache.layers[0].keys.device)  # [n]: without the padding between
            keys = torch.stack([layer.keys[row][:, at] for layer in cache.layers])
            values = torch.stack([layer.values[row][:, at] for layer in cache.layers])
            kept.append(self.prefixes.add(prompts[row], keys, values, in_flight=self._most_acting))
        return kept

    @torch.no_grad()
    def read(self, prompt: Prompt) -> Passes:
        """Keep the keys and values of a prompt, unless there are some; the last token is left to :meth:`generate`.

        A prompt that does not fit into memory is left to it as well.
        """
        if not keeps_everything(self.model.config) or not self._prefix_budget:
            return NO_PASSES
        ids = self._ids(prompt)
        if self.prefixes.match(ids)[1] >= len(ids) - 1:  # nearly always, and not worth waiting for a batch that is being answered
            return NO_PASSES
        with self._lock:
            try:
                self._read([ids], [self.prefixes.match(ids)])
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._make_room()
                return NO_PASSES
        return Passes(1, 1)

    def _step_positions(self, next_position: Tensor) -> Tensor:
        return next_position[:, None]  # [b, 1]

    def _tree_positions(self, positions: Tensor) -> Tensor:
        return positions

    def _hidden_of(self, prompt: Prompt, tokens: Tensor) -> Tensor:
        ids = self._ids(prompt).to(tokens.device)  # [n]
        if not 2 <= len(ids) <= LONGEST_KEPT or not self._prefix_budget or not keeps_everything(self.model.config):
            both = torch.cat([ids, tokens])[None]  # [1, n + T]
            hidden: Tensor = self.model.model(input_ids=both, use_cache=False).last_hidden_state[0]
            return hidden[-len(tokens) - 1 : -1]
        entry = self._scored.of(ids[:-1], self._read_by_itself)
        rest = torch.cat([ids[-1:], tokens[:-1]])  # [T]: each predicts one of ``tokens``
        places = torch.arange(len(ids) - 1, len(ids) - 1 + len(rest), device=rest.device)
        cache = left_padded([(entry, len(ids) - 1)], self.model.config.num_hidden_layers)
        found: Tensor = self.model.model(
            input_ids=rest[None], position_ids=places[None], use_cache=True, **{self._cache_argument: cache}
        ).last_hidden_state[0]
        return found

    def _read_by_itself(self, ids: Tensor) -> Entry:
        cache = left_padded([(None, 0)], self.model.config.num_hidden_layers)
        self.model.model(input_ids=ids[None], use_cache=True, **{self._cache_argument: cache})
        keys, values = (torch.stack([getattr(layer, name)[0] for layer in cache.layers]) for name in ("keys", "values"))
        return Entry(ids, keys, values)
