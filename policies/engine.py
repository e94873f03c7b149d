"""Generation with the vision-language models of Qwen's line, batched: an adapter, a temperature and a random stream for every row.

The decode loop is our own because every row needs its own adapter, sampler, limit, log-probabilities and hidden states, for which
``generate`` of transformers would need four plug-ins.  Both give the same tokens (a test holds them together) at the same speed.

b rows of a batch · L prompt length after left padding · T tokens generated · d hidden size · V vocabulary
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import re
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from envs.errors import AdaptationError, PolicyError
from policies.base import Passes
from policies.batching import Again, Batcher
from policies.generation import BatchRow, FirstPass, Generation, Prompt, Request, Score, Search
from policies.head import NOT_PLAIN, HeadAdapter, head_hooks, is_plain, own_logits
from policies.learner import HeadLearner
from policies.methods import WeightsConfig
from policies.prompts import VisionPrompts, stop_ids_of
from policies.sampler import Sampler
from policies.tree_engine import Read, Redrawing, TreeEngine, is_out_of_memory
from policies.turns import Turns
from policies.vision_cache import VisionCache

__all__ = ["Engine", "Generation", "Prompt", "Request", "Score", "Search"]

Asked = Request | Search | Redrawing
"""What a batch answers."""

PASSES = 32
"""Passes after which replies that are still being drawn again are left for the next batch."""

KEEP_SHARE = 0.75
"""Rows of a batch that are finished leave it once no more than this share is still being written."""

MMAP_THRESHOLD, ARENA_MAX = -3, -8
"""Parameters of glibc's mallopt(3)."""

SCORE_ROWS = 128
"""Tokens scored at a time: their logits over a vocabulary of 152,064 take 78 MB."""


class Engine(VisionPrompts, TreeEngine):
    """One frozen backbone shared by all sessions.

    Args:
        model: A ``ForConditionalGeneration`` of Qwen2-VL, Qwen2.5-VL, Qwen3-VL or Qwen3.5 (dense or MoE), in eval mode, on one device
            or spread over several.
        processor: Its processor; the tokenizer pads on the left.
        max_batch: Rows generated together at most.
        window_s: How long a batch waits for sessions that are known to be acting.
        vision_cache_mb: Memory for what the vision tower made of screenshots that come again; more where the sessions in flight need
            more for theirs, up to a quarter of a GPU. 0 keeps none.
    """

    def __init__(
        self, model: Any, processor: Any, *, max_batch: int = 16, window_s: float = 0.02, vision_cache_mb: float = 1024.0
    ) -> None:
        self._share_processor(processor)
        self.vision = VisionCache(model, vision_cache_mb)
        self._share(model, processor.tokenizer, max_batch, window_s)

    def _share(self, model: Any, tokenizer: Any, max_batch: int, window_s: float) -> None:
        """What engines of all kinds have."""
        self.model = model
        self._share_tokenizer(tokenizer, stop_ids_of(model.generation_config, tokenizer), model.lm_head.weight.shape[0])
        # Newer versions of transformers renamed the argument, and warn of the old name.
        self._cache_argument = "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"
        keep_head_resident(model)
        if model.lm_head.weight.device.type == "cpu":
            give_memory_back()
        self._input_device = execution_device(model.get_input_embeddings())
        self._lock = Turns()  # one pass at a time: the hooks sit on the shared head
        self.batcher: Batcher[Asked, Generation] = Batcher(self._answer, max_batch=max_batch, window_s=window_s)

    @property
    def device(self) -> torch.device:
        """Where the head is: where H, the logits' adapters and the updates belong."""
        device: torch.device = self.model.lm_head.weight.device
        return device

    @property
    def head_weight(self) -> Tensor:
        """W [V, d] of the head that adapters act on.

        Raises:
            PolicyError: the logits are not W h alone, so that nothing derived for W h holds.
        """
        if not self._plain_head:
            raise PolicyError(*NOT_PLAIN)
        weight: Tensor = self.model.lm_head.weight
        return weight

    @functools.cached_property
    def _plain_head(self) -> bool:
        with self._lock:
            return is_plain(self.model.lm_head.weight, lambda rows: own_logits(self.model, rows))

    def learner(self, config: WeightsConfig, seed: int) -> HeadLearner:
        """The head adapter of a new session, and what it learns with."""
        return HeadLearner(config, self.head_weight, seed)

    def enter(self, session: Hashable) -> None:
        """``session`` is in an attempt: its next request is worth waiting for."""
        self.batcher.enter(session)

    def leave(self, session: Hashable) -> None:
        """``session`` is not acting any more.  May be called twice."""
        self.batcher.leave(session)

    # -- prompts -----------------------------------------------------------------------------------------------------------------
    def _encode(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """What the processor makes of the prompts but for their pixels, which only pictures that are not remembered need."""
        patches = [(1, image.height // self.patch_size, image.width // self.patch_size) for p in prompts for image in p.images]
        token, cell = self.processor.image_token, (self.factor // self.patch_size) ** 2
        counts = iter([rows * columns // cell for _, rows, columns in patches])
        texts = [re.sub(re.escape(token), lambda _: token * next(counts), prompt.text) for prompt in prompts]
        with self._tokenizer_lock:
            found = self.tokenizer(texts, padding=True, return_tensors="pt")
            image_id = self.tokenizer.convert_tokens_to_ids(token)
        encoded = {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}
        if patches:
            encoded |= {"mm_token_type_ids": (encoded["input_ids"] == image_id).long(), "image_grid_thw": torch.tensor(patches)}
        return {name: value.to(self._input_device) for name, value in encoded.items()}

    def _pixels(self, images: list[Any]) -> Tensor:
        """Pixels of pictures for the vision tower [Σ patches, values of a patch], at the size that they have."""
        made: Tensor = self.processor.image_processor(images=images, do_resize=False, return_tensors="pt")["pixel_values"]
        return made.to(self._input_device)

    def _seen(self, prompts: Sequence[Prompt], encoded: dict[str, Tensor]) -> dict[str, Any]:
        """What the model is given of the pictures: the vision tower's features, computed or remembered."""
        images = [image for prompt in prompts for image in prompt.images]
        if not images:
            return {}
        most = max(len(prompt.images) for prompt in prompts)
        features = self.vision.features(images, encoded["image_grid_thw"], self._pixels, in_flight=most * self.batcher.acting)
        return {"mm_encoder_outputs": features.as_outputs()}

    def _positions(self, encoded: dict[str, Tensor]) -> Tensor:
        """Rotary positions [3, b, L] (time, height, width); of padding, 0."""
        mask = encoded["attention_mask"]
        if "image_grid_thw" not in encoded:
            return (mask.cumsum(-1) - 1).clamp(min=0).expand(3, *mask.shape)
        positions, _ = self.model.model.get_rope_index(
            encoded["input_ids"],
            mm_token_type_ids=encoded["mm_token_type_ids"],
            image_grid_thw=encoded["image_grid_thw"],
            attention_mask=mask,
        )
        return positions

    # -- generation --------------------------------------------------------------------------------------------------------------
    def submit(self, request: Request | Search) -> Generation:
        """The reply to ``request``, generated together with what other threads ask at the same time."""
        return self.batcher.submit(request)

    def _answer(self, asked: Sequence[Asked]) -> list[Generation | Again[Asked]]:
        """Draws share their passes; every search has its own, so that what it finds depends on nobody else's.

        A reply that takes many draws is gone on with in the next batch, beside what is asked by then.
        """
        drawn = iter(self._draw([one for one in asked if isinstance(one, Request)]))
        made = [next(drawn) if isinstance(one, Request) else self.search(one) if isinstance(one, Search) else one for one in asked]
        again = iter(self._draw_again([one for one in made if isinstance(one, Redrawing)], PASSES))
        made = [next(again) if isinstance(one, Redrawing) else one for one in made]
        return [Again(one) if isinstance(one, Redrawing) else one for one in made]

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Replies of one batch, in the order of ``requests``; a batch that does not fit into memory is halved.

        Raises:
            PolicyError: not even one row fits into memory, or the logits are not numbers.
        """
        drawn = self._draw(requests)
        again = iter(self._draw_again([one for one in drawn if isinstance(one, Redrawing)], None))
        replies = [next(again) if isinstance(one, Redrawing) else one for one in drawn]
        return [one for one in replies if isinstance(one, Generation)]  # all of them

    def _draw(self, requests: Sequence[Request]) -> list[Generation | Redrawing]:
        if not requests:
            return []
        try:
            with self._lock:
                return self._generate(requests)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(requests) == 1:
                raise PolicyError(
                    f"Out of memory on {self.device} while generating.",
                    "Lower model.max_pixels or model.history_images, or use model.dtype=bfloat16 or a smaller policy.",
                ) from error
        self._make_room()
        half = len(requests) // 2
        self.batcher.limit(max(1, half))  # it would not fit the next time either
        return self._draw(requests[:half]) + self._draw(requests[half:])

    def _make_room(self) -> None:
        """Forget what can be computed again."""
        self.vision.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.no_grad()
    def _generate(self, requests: Sequence[Request]) -> list[Generation | Redrawing]:
        pass_ = self._first_pass(requests)
        mask, cache = pass_.mask, pass_.cache
        padded = not bool(mask.all())
        prompts = [torch.tensor(self._ids_of(r.prompt.text)) if r.sampling.repetition_penalty != 1 else None for r in requests]
        sampler = Sampler([r.sampling for r in requests], [r.seed for r in requests], prompts)
        rows = [BatchRow(r.sampling.max_new_tokens, self.stop_ids) for r in requests]
        step_inputs, positions, next_position = pass_.inputs, pass_.positions, pass_.next_position
        first, read = True, dict[int, Read]()  # prompts that may be gone back to
        live = list(range(len(rows)))  # the rows that are still in the batch
        hidden: list[list[Tensor]] = [[] for _ in rows]
        with head_hooks(self.model.lm_head, [r.adapter for r in requests], capture=any(r.capture for r in requests)) as tap:
            while True:
                logits = (
                    self.model(
                        **step_inputs,
                        position_ids=positions,
                        attention_mask=mask if padded else None,
                        **{self._cache_argument: cache},
                        use_cache=True,
                        logits_to_keep=1,
                    )
                    .logits[:, -1]
                    .float()
                )  # [b, V]
                tokens = sampler.draw(logits)  # [b]
                chosen = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)  # [b]
                if tap.hidden:
                    for i, h in zip(live, tap.hidden.pop(), strict=True):
                        if requests[i].capture and not rows[i].finish:
                            hidden[i].append(h)
                if first:
                    read = {
                        i: Read.row(cache, i, mask, pass_, logits[i], hidden[i], r.adapter)
                        for i, r in enumerate(requests)
                        if r.exclusion is not None
                    }
                    if pass_.after is not None:
                        pass_.after()
                    first = False
                for i, token, logprob in zip(live, tokens.tolist(), chosen.tolist(), strict=True):
                    rows[i].add(token, logprob)
                going = [at for at, i in enumerate(live) if not rows[i].finish]
                if not going:
                    break
                if len(going) <= KEEP_SHARE * len(live):  # what is written already need not be carried along
                    index = torch.tensor(going, device=tokens.device)
                    cache.reorder_cache(index)  # type: ignore[arg-type]  # linear attention has states of its own, which only this selects from
                    sampler.keep(going)
                    tap.keep(going)
                    tokens = tokens[index]
                    next_position, mask = next_position[index.to(mask.device)], mask[index.to(mask.device)]
                    live = [live[at] for at in going]
                step_inputs = {"input_ids": tokens[:, None].to(self._input_device)}
                positions = self._step_positions(next_position)
                next_position = next_position + 1
                mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
        sizes = pass_.prompt_tokens
        made = [self._generation(row, hidden[i] if requests[i].capture else None, sizes[i]) for i, row in enumerate(rows)]
        return self._counting(requests, made, read)

    def _first_pass(self, requests: Sequence[Request]) -> FirstPass:
        """What the model is called with to read the prompts."""
        encoded = self._encode([r.prompt for r in requests])
        positions = self._positions(encoded)  # [3, b, L]
        return FirstPass(
            inputs={"input_ids": encoded["input_ids"], **self._seen([r.prompt for r in requests], encoded)},
            positions=positions,
            next_position=positions.amax(dim=(0, 2)) + 1,  # [b]: after an image it is not the number of tokens
            mask=encoded["attention_mask"],  # [b, L]
            cache=DynamicCache(config=self.model.config.get_text_config()),
            prompt_tokens=encoded["attention_mask"].sum(dim=1).tolist(),
        )

    def _step_positions(self, next_position: Tensor) -> Tensor:
        """Rotary positions of one more token per row, [b] -> [3, b, 1]."""
        return next_position.view(1, -1, 1).expand(3, -1, -1)

    def _generation(self, row: BatchRow, hidden: list[Tensor] | None, prompt_tokens: int) -> Generation:
        return Generation(
            text=self._decode(row.tokens, skip_special_tokens=True),
            tokens=torch.tensor(row.tokens),
            hidden=None if hidden is None else torch.stack(hidden),  # [T, d]
            logprobs=torch.tensor(row.logprobs),
            finish=row.finish,
            prompt_tokens=prompt_tokens,
            passes=Passes(len(row.tokens), 1),
        )

    # -- teacher forcing -----------------------------------------------------------------------------------------------------------
    def score(self, prompt: Prompt, tokens: Tensor, adapter: HeadAdapter | None = None) -> Score:
        """H and log-probabilities of the reply ``tokens`` [T] to ``prompt``, in one pass.

        Raises:
            AdaptationError: the pass does not fit into memory.
        """
        try:
            with self._lock:
                return self._score(prompt, tokens.to(self._input_device), adapter)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise AdaptationError(f"Out of memory on {self.device} while scoring a reply.", "Use adapt.score_under=raw.") from error

    @torch.no_grad()
    def _score(self, prompt: Prompt, tokens: Tensor, adapter: HeadAdapter | None) -> Score:
        hidden = self._hidden_of(prompt, tokens).to(self.device)  # [T, d]
        tokens = tokens.to(self.device)
        logprobs = []
        with head_hooks(self.model.lm_head, [adapter], capture=False):
            for rows, chosen in zip(hidden.split(SCORE_ROWS), tokens.split(SCORE_ROWS), strict=True):
                logits = own_logits(self.model, rows).to(self.device).float()  # [n, V]
                logprobs.append(logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1))
        return Score(hidden, torch.cat(logprobs).cpu())

    def _hidden_of(self, prompt: Prompt, tokens: Tensor) -> Tensor:
        """What the head receives where it predicts each of ``tokens`` [T] after ``prompt``: [T, d]."""
        encoded = self._encode([prompt])
        prompt_positions = self._positions(encoded)  # [3, 1, L]
        new = prompt_positions.amax() + 1 + torch.arange(len(tokens), device=tokens.device)  # [T]
        hidden: Tensor = self.model.model(
            input_ids=torch.cat([encoded["input_ids"], tokens[None]], dim=1),  # [1, L + T]: no padding, no mask
            position_ids=torch.cat([prompt_positions, new.expand(3, 1, -1)], dim=2),
            use_cache=False,
            **self._seen([prompt], encoded),
        ).last_hidden_state[0, -len(tokens) - 1 : -1]  # [T, d]: position i predicts token i + 1
        return hidden


def give_memory_back() -> None:
    """Let the C library return what tensors on a CPU took; without another library's allocator, and only where it is glibc.

    Every thread that runs a batch would get a heap of its own, and none of it comes back, to the kernel or to another thread, once a
    block above was kept: a process of 24 sessions that drew again and again held 18 GB, of which 3 were in use.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(MMAP_THRESHOLD, 2**20)  # bytes; larger blocks are the kernel's, and return to it
        library.mallopt(ARENA_MAX, 1)  # smaller ones (a node's logits) are of one heap, whichever thread takes them


def execution_device(module: Any) -> torch.device:
    """Where ``module`` computes: under accelerate its weights may lie elsewhere, or nowhere, between two calls."""
    hook = getattr(module, "_hf_hook", None)
    for one in (hook, *getattr(hook, "hooks", ())):
        if getattr(one, "execution_device", None) is not None:
            return torch.device(one.execution_device)
    device: torch.device = next(module.parameters()).device
    return device


def keep_head_resident(model: Any) -> None:
    """Load the head for good where accelerate offloaded it: its weight is what adapters and updates are computed with.

    Raises:
        PolicyError: it is not a plain linear layer of floating-point weights.
    """
    head = model.lm_head
    if head.weight.is_meta:
        from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module

        hook = next(h for h in (head._hf_hook, *getattr(head._hf_hook, "hooks", ())) if getattr(h, "weights_map", None) is not None)
        device = torch.device(hook.execution_device)
        own = {name: hook.weights_map[name].to(device) for name, _ in head.named_parameters()}
        remove_hook_from_module(head)
        for name, value in own.items():
            setattr(head, name, torch.nn.Parameter(value, requires_grad=False))
        add_hook_to_module(head, AlignDevicesHook(execution_device=device))
    if type(head) is not torch.nn.Linear or not head.weight.is_floating_point():
        raise PolicyError(
            "This checkpoint's head (lm_head) is quantised: adapters and log-probabilities need its weights.",
            "Use a checkpoint whose quantisation leaves lm_head out.",
        )
