"""What an engine does with a tree of replies below one prompt: search it, or draw from it as if some replies did not exist."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from envs.errors import PolicyError
from envs.room import memory_gb
from policies.base import Passes
from policies.beam import BestFirst
from policies.exclusion import Excluding, Redrawn, redraw
from policies.generation import FirstPass, Generation, Request, Search
from policies.growing import columns_of, packed, row_of
from policies.head import head_hooks
from policies.sampling import SamplingConfig, seed_of
from policies.tree import Errand, Forest, Root, TokenTree, Work, has_trees
from policies.tree_attention import own_attention
from policies.turns import Turns

PARKED_SHARE = 0.1
"""Of the memory of the device, what replies that are put aside may take: beyond it the largest are drawn to their end first, though others
wait."""


@dataclass(frozen=True)
class Read:
    """A prompt that was read, to be gone back to: its own keys and values, and what is known after its last token."""

    cache: Any
    root: Root

    @classmethod
    def row(
        cls, cache: Any, row: int, mask: Tensor, first: FirstPass, logits: Tensor, hidden: Sequence[Tensor], adapter: Any
    ) -> Read:
        """Row ``row`` of a batch whose prompts have just been read."""
        captured = hidden[0] if hidden else None
        root = Root(logits.clone(), first.prompt_tokens[row], int(first.next_position[row]), captured, adapter)
        return cls(row_of(cache, row, mask), root)


@dataclass
class Redrawing:
    """A reply that is drawn again.  It may be put aside between two passes, so that nobody waits for one that takes many.

    Attributes:
        request: What was asked.
        reply: What was drawn first, which does not count.
        cache: Keys and values of its prompt and of its tree's nodes, one row.
        excluding: What is drawn from.
        errand: The drawing.
    """

    request: Request
    reply: Generation
    cache: Any
    excluding: Excluding
    errand: Errand[Redrawn]


class TreeEngine(abc.ABC):
    """The part of :class:`policies.engine.Engine` that works below one prompt."""

    model: Any
    stop_ids: frozenset[int]
    _lock: Turns
    _cache_argument: str
    _input_device: torch.device

    @property
    @abc.abstractmethod
    def device(self) -> torch.device:
        """Where the head is."""

    @abc.abstractmethod
    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Replies of one batch."""

    @abc.abstractmethod
    def _make_room(self) -> None: ...

    @abc.abstractmethod
    def _first_pass(self, requests: Sequence[Request]) -> FirstPass: ...

    @abc.abstractmethod
    def _ids_of(self, text: str) -> list[int]: ...

    @abc.abstractmethod
    def _decode(self, tokens: list[int], *, skip_special_tokens: bool = False) -> str: ...

    @property
    def has_trees(self) -> bool:
        """Whether replies can be searched: the model takes a tree's attention mask."""
        return has_trees(self.model.config.get_text_config())

    @functools.cached_property
    def _worth_packing(self) -> int:
        """Tokens of prompts that are gone back to together, at most.

        Together they share the reading of the weights, but, elsewhere than on a CPU (:mod:`policies.tree_attention`), every new token
        attends to the columns of all of them.  At so many columns that costs as much as the rest of the model:
        2 · parameters = 4 · columns · layers · heads · size of a head.
        """
        config = self.model.config.get_text_config()
        if self.device.type == "cpu" and config._attn_implementation == "sdpa":
            return sys.maxsize
        sizes = (
            getattr(config, name, None) for name in ("qk_head_dim", "head_dim")
        )  # latent attention has both: the first is whole
        size = next((size for size in sizes if size), config.hidden_size // config.num_attention_heads)
        attention = 2 * config.num_hidden_layers * config.num_attention_heads * size
        return sum(p.numel() for p in self.model.parameters()) // attention

    @functools.cached_property
    def _parked_mb(self) -> float:
        """Memory of replies that are put aside, at most."""
        if self.device.type == "cuda":
            return PARKED_SHARE * torch.cuda.mem_get_info(self.device)[1] / 2**20
        return PARKED_SHARE * memory_gb() * 1024

    def search(self, search: Search) -> Generation:
        """The most probable reply that counts.  If none does, the most probable one; if none has ended, the greedy one as far as it goes.

        Raises:
            PolicyError: the model takes no masks of trees, or does not fit into memory.
        """
        if not self.has_trees:
            raise PolicyError(
                "This model's attention takes no tree of replies, so that they cannot be searched.",
                "Use sampling.next_best=false, or model.attn_implementation=sdpa if another one was asked for.",
            )
        try:
            with self._lock, torch.no_grad():
                found = self._search(search)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise PolicyError(
                f"Out of memory on {self.device} while searching.", "Use fewer sampling.beams, or a smaller policy."
            ) from error
        if found.tokens.numel():
            return found
        greedy = SamplingConfig(max_new_tokens=search.max_new_tokens)
        drawn = self.generate([Request(search.prompt, greedy, 0, search.adapter, search.capture)])[0]
        return dataclasses.replace(drawn, passes=drawn.passes + found.passes)

    def _search(self, search: Search) -> Generation:
        read = self._read_alone(search)
        tree = TokenTree(read.root)
        with self._forest([tree], [read.cache], capture=search.capture):
            best = BestFirst(
                tree, width=search.beams, limit=search.max_new_tokens, stops=self.stop_ids,
                counts=lambda tokens: search.counts(self._decode(tokens, skip_special_tokens=True)),
            )  # fmt: skip
            found = best.run() or best.anything
            passes, size = Passes(tree.passes + 1, 1), tree.root.prompt_tokens
            if found is None:
                return Generation("", torch.zeros(0, dtype=torch.long), None, torch.zeros(0), "length", size, passes)
            return Generation(
                text=self._decode(found.tokens, skip_special_tokens=True),
                tokens=torch.tensor(found.tokens),
                hidden=tree.hidden(found.node) if search.capture else None,  # [T, d]
                logprobs=torch.tensor(found.logprobs),
                finish="stop",
                prompt_tokens=size,
                passes=passes,
            )

    def _read_alone(self, search: Search) -> Read:
        """Read the prompt of a search."""
        first = self._first_pass([Request(search.prompt)])
        with head_hooks(self.model.lm_head, [search.adapter], capture=search.capture) as tap:
            logits = self.model(
                **first.inputs, position_ids=first.positions, attention_mask=None, **{self._cache_argument: first.cache},
                use_cache=True, logits_to_keep=1,
            ).logits[0, -1].float()  # fmt: skip
        if first.after is not None:
            first.after()
        hidden = tap.hidden[0][0] if tap.hidden else None
        return Read(first.cache, Root(logits, first.prompt_tokens[0], int(first.next_position[0]), hidden, search.adapter))

    def _counting(
        self, requests: Sequence[Request], made: Sequence[Generation], read: dict[int, Read]
    ) -> list[Generation | Redrawing]:
        """``made``, where what does not count is to be drawn again as if it did not exist: the prompts in ``read`` are not read again."""
        found: list[Generation | Redrawing] = []
        for row, (request, one) in enumerate(zip(requests, made, strict=True)):
            exclusion = request.exclusion
            if exclusion is None or (one.finish == "stop" and exclusion.counts(one.text)):
                found.append(one)
                continue
            tree = TokenTree(read[row].root)
            excluding = self._excluding(request, tree)
            errand = Errand(tree, self._redraw(request, one, excluding))
            found.append(Redrawing(request, one, read[row].cache, excluding, errand))
        return found

    def _draw_again(self, some: Sequence[Redrawing], passes: int | None) -> list[Generation | Redrawing]:
        """Go on with replies that are drawn again, to the end or for so many passes; those that are not done then are given as they are.

        If they do not fit into memory, each is begun anew by itself.
        """
        if not some:
            return []
        try:
            with self._lock, torch.no_grad():
                for group in self._groups(some):
                    self._go_on(group, passes)
                for one in _beyond(self._parked_mb, some):
                    self._go_on([one], None)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(some) == 1:
                raise PolicyError(f"Out of memory on {self.device} while generating.", "Use a smaller policy.") from error
            self._make_room()
            return [self.generate([one.request])[0] for one in some]
        return [one if one.errand.asks is not None else self._redrawn(one) for one in some]

    def _groups(self, some: Sequence[Redrawing]) -> Iterator[list[Redrawing]]:
        """Those that are worth going back to together."""
        group: list[Redrawing] = []
        for one in some:
            if group and sum(other.errand.tree.root.prompt_tokens for other in (*group, one)) > self._worth_packing:
                yield group
                group = []
            group.append(one)
        yield group

    def _go_on(self, group: Sequence[Redrawing], passes: int | None) -> None:
        capture = any(one.request.capture for one in group)
        with self._forest([one.errand.tree for one in group], [one.cache for one in group], capture=capture) as (forest, cache):
            forest.go([one.errand for one in group], passes)
        left = [one for one in group if one.errand.asks is not None]
        caches = [cache] if len(group) == 1 else [columns_of(cache, one.errand.tree.columns()) for one in left]
        for one, own in zip(left, caches, strict=False):
            one.cache = own

    def _excluding(self, request: Request, tree: TokenTree) -> Excluding:
        generator = torch.Generator().manual_seed(seed_of(request.seed, "again"))
        prompt = self._ids_of(request.prompt.text) if request.sampling.repetition_penalty != 1 else ()
        return Excluding(tree, request.sampling, self.stop_ids, generator, prompt)

    def _redraw(self, request: Request, reply: Generation, excluding: Excluding) -> Work[Redrawn]:
        assert request.exclusion is not None
        return redraw(
            excluding, request.exclusion, reply.tokens.tolist(), limit=request.sampling.max_new_tokens,
            decode=lambda tokens: self._decode(list(tokens), skip_special_tokens=True),
            pieces=lambda tokens: [self._decode([token]) for token in tokens],
        )  # fmt: skip

    def _redrawn(self, one: Redrawing) -> Generation:
        """The reply that was found."""
        found, tree, request = one.errand.result, one.errand.tree, one.request
        assert found is not None
        return Generation(
            text=found.text,
            tokens=torch.tensor(found.drawn.tokens),
            hidden=tree.hidden(found.drawn.node) if request.capture else None,  # [T, d]
            logprobs=torch.tensor(found.drawn.logprobs),
            finish="stop" if found.drawn.ended else "length",
            prompt_tokens=one.reply.prompt_tokens,
            passes=Passes(one.reply.passes.forward + tree.passes, 1),
            redrawn=found.others,
            redrawn_unparsable=found.unparsable,
            drawn_tokens=found.tokens,
        )

    @contextlib.contextmanager
    def _forest(self, trees: Sequence[TokenTree], caches: Sequence[Any], *, capture: bool) -> Iterator[tuple[Forest, Any]]:
        """Trees to be grown node by node while the block runs, and the one cache that they stand in; theirs are used up."""
        cache = packed(caches)

        def call(ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
            logits: Tensor = self.model(
                input_ids=ids.to(self._input_device),
                position_ids=self._tree_positions(positions.to(self._input_device)),
                attention_mask=mask.to(self._input_device),
                **{self._cache_argument: cache},
                use_cache=True,
                logits_to_keep=ids.shape[1],
            ).logits
            return logits

        with (
            own_attention(self.model.config.get_text_config()),
            head_hooks(self.model.lm_head, [], capture=capture, packed=True) as tap,
        ):
            try:
                yield Forest(call, tap, trees, self.model.dtype), cache
            finally:
                for tree in trees:
                    tree.uproot()

    def _tree_positions(self, positions: Tensor) -> Tensor:
        """Rotary positions of new tokens, [1, m] -> [3, 1, m]."""
        return positions.expand(3, 1, -1)


def _beyond(room_mb: float, some: Sequence[Redrawing]) -> list[Redrawing]:
    """Of those that are still being drawn the largest, so that the others take no more memory than this."""
    found = []
    for one in sorted((one for one in some if one.errand.asks is not None), key=lambda one: one.excluding.held_mb):
        room_mb -= one.excluding.held_mb
        if room_mb < 0:
            found.append(one)
    return found


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says so, of whichever device."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
