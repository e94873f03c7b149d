"""What an engine does with a tree of replies below one prompt: search it, or draw from it as if some replies did not exist."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from envs.errors import PolicyError
from policies.base import Passes, SamplingConfig
from policies.beam import BestFirst
from policies.exclusion import Excluding, redraw
from policies.generation import FirstPass, Generation, Request, Search
from policies.growing import row_of
from policies.head import HeadAdapter, head_hooks
from policies.sampling import seed_of
from policies.tree import TokenTree, has_trees


@dataclass(frozen=True)
class Read:
    """A prompt that was read in a batch, to be gone back to.

    Attributes:
        cache: Its own keys and values.
        logits: After its last token, [V] float32.
        hidden: What the head received there, [d]; None if nothing is captured.
        prompt_tokens, position: Its length, and the position of what follows.
    """

    cache: Any
    logits: Tensor
    hidden: Tensor | None
    prompt_tokens: int
    position: int

    @classmethod
    def row(cls, cache: Any, row: int, mask: Tensor, first: FirstPass, logits: Tensor, hidden: Sequence[Tensor]) -> Read:
        """Row ``row`` of a batch whose prompts have just been read."""
        captured = hidden[0] if hidden else None
        return cls(row_of(cache, row, mask), logits.clone(), captured, first.prompt_tokens[row], int(first.next_position[row]))


class TreeEngine(abc.ABC):
    """The part of :class:`policies.engine.Engine` that works below one prompt."""

    model: Any
    stop_ids: frozenset[int]
    _lock: threading.Lock
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
    def _first_pass(self, requests: Sequence[Request]) -> FirstPass: ...

    @abc.abstractmethod
    def _ids_of(self, text: str) -> list[int]: ...

    @abc.abstractmethod
    def _decode(self, tokens: list[int], *, skip_special_tokens: bool = False) -> str: ...

    @property
    def has_trees(self) -> bool:
        """Whether replies can be searched: the model takes a tree's attention mask."""
        return has_trees(self.model.config.get_text_config())

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
        with self._tree(self._first_pass([Request(search.prompt)]), search.adapter, capture=search.capture) as tree:
            best = BestFirst(
                tree, width=search.beams, limit=search.max_new_tokens, stops=self.stop_ids,
                counts=lambda tokens: search.counts(self._decode(tokens, skip_special_tokens=True)),
            )  # fmt: skip
            found = best.run() or best.anything
            passes = Passes(tree.passes + 1, 1)
            if found is None:
                return Generation("", torch.zeros(0, dtype=torch.long), None, torch.zeros(0), "length", tree.prompt_tokens, passes)
            return Generation(
                text=self._decode(found.tokens, skip_special_tokens=True),
                tokens=torch.tensor(found.tokens),
                hidden=tree.hidden(found.node) if search.capture else None,  # [T, d]
                logprobs=torch.tensor(found.logprobs),
                finish="stop",
                prompt_tokens=tree.prompt_tokens,
                passes=passes,
            )

    @torch.no_grad()
    def _redrawn(self, request: Request, reply: Generation, read: Read) -> Generation:
        """``reply`` if it counts; else one that is drawn as if what does not count did not exist, the prompt not read again."""
        exclusion = request.exclusion
        assert exclusion is not None
        if reply.finish == "stop" and exclusion.counts(reply.text):
            return reply
        with self._tree(read, request.adapter, capture=request.capture) as tree:
            generator = torch.Generator().manual_seed(seed_of(request.seed, "again"))
            prompt = self._ids_of(request.prompt.text) if request.sampling.repetition_penalty != 1 else ()
            excluding = Excluding(tree, request.sampling, self.stop_ids, generator, prompt)
            found = redraw(
                excluding, exclusion, reply.tokens.tolist(), limit=request.sampling.max_new_tokens,
                decode=lambda tokens: self._decode(list(tokens), skip_special_tokens=True),
                pieces=lambda tokens: [self._decode([token]) for token in tokens],
            )  # fmt: skip
            return Generation(
                text=found.text,
                tokens=torch.tensor(found.drawn.tokens),
                hidden=tree.hidden(found.drawn.node) if request.capture else None,  # [T, d]
                logprobs=excluding.logprobs(found.drawn),
                finish="stop" if found.drawn.ended else "length",
                prompt_tokens=reply.prompt_tokens,
                passes=Passes(reply.passes.forward + tree.passes, 1),
                redrawn=found.others,
                redrawn_unparsable=found.unparsable,
                drawn_tokens=found.tokens,
            )

    @contextlib.contextmanager
    def _tree(self, read: FirstPass | Read, adapter: HeadAdapter | None, *, capture: bool) -> Iterator[TokenTree]:
        """What follows a prompt, to be grown node by node while the block runs; it is read now if it was not."""

        def call(ids: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
            logits: Tensor = self.model(
                input_ids=ids.to(self._input_device),
                position_ids=self._tree_positions(positions.to(self._input_device)),
                attention_mask=mask,
                **{self._cache_argument: read.cache},
                use_cache=True,
                logits_to_keep=ids.shape[1],
            ).logits
            return logits

        with head_hooks(self.model.lm_head, [adapter], capture=capture, every=True) as tap:
            if isinstance(read, FirstPass):
                logits = self.model(
                    **read.inputs, position_ids=read.positions, attention_mask=None, **{self._cache_argument: read.cache},
                    use_cache=True, logits_to_keep=1,
                ).logits[0, -1].float()  # fmt: skip
                if read.after is not None:
                    read.after()
                size, position = read.prompt_tokens[0], int(read.next_position[0])
            else:
                logits, size, position = read.logits, read.prompt_tokens, read.position
                if capture and read.hidden is not None:
                    tap.hidden.append(read.hidden[None, None])
            yield TokenTree(call, tap, logits, prompt_tokens=size, position=position, mask_dtype=self.model.dtype)

    def _tree_positions(self, positions: Tensor) -> Tensor:
        """Rotary positions of new tokens, [1, m] -> [3, 1, m]."""
        return positions.expand(3, 1, -1)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says so, of whichever device."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
