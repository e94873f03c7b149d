"""What one session learns from its attempts: H and y captured while acting, one update per failed attempt, undo, save, load."""

from __future__ import annotations

import itertools
import json
import math
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import logsigmoid

from envs.errors import AdaptationError, StoreError, UsageError
from policies.adaptation import method_named
from policies.adapters import adapter_class, load_adapter
from policies.adapters.base import HeadAdapter
from policies.base import ReplyTokens, Update
from policies.head_pass import MB, HeadPass
from policies.methods import MethodConfig, TokensConfig, WeightsConfig
from policies.methods.effect import Learned
from policies.methods.episode import Episode, Replayed, rest_of

STATE = "learner.json"
REPLAY = "replay.safetensors"
RESIDUAL = {"residual": "residual_before", "delta_norm2": "delta_norm2"}
"""What :meth:`HeadLearner.residual` gives, and the numbers of an update that these are."""


@dataclass(frozen=True)
class Piece:
    """One ``record``: H [n, d], y [n], marks of coordinates and of the frame [n] or None, and the step they belong to."""

    hidden: Tensor
    tokens: Tensor
    coordinates: Tensor | None
    frame: Tensor | None
    step: int


@dataclass(frozen=True)
class Past:
    """The session's earlier failed attempts (``replay``): H [n, d], y [n], and where the updates put their tokens."""

    hidden: Tensor
    tokens: Tensor
    margins: Replayed

    def tensors(self) -> dict[str, Tensor]:
        """As they are kept in a file or sent."""
        return {"hidden": self.hidden, "tokens": self.tokens, "margin": self.margins.margin, "moved": self.margins.moved}

    @classmethod
    def of(cls, kept: Mapping[str, Tensor]) -> Past | None:
        """What :meth:`tensors` gave; None of nothing."""
        return cls(kept["hidden"].clone(), kept["tokens"], Replayed(kept["margin"], kept["moved"])) if kept else None


Capture = list[tuple[Tensor, Tensor]]
"""(H [n, d], y [n]) of every reply of an attempt, in order."""


class HeadLearner:
    """The adapter of one session before a shared head W [V, d], and what was captured of the attempt in flight.

    The same seed, config, H, y and rewards give the same adapter, bit for bit, on the same machine.
    """

    def __init__(self, config: WeightsConfig, lm_head_weight: Tensor, seed: int) -> None:
        if not isinstance(config, MethodConfig):
            raise UsageError("A learner needs a method of the weights.", "Use adapt.weights.method=rosa, or another.")
        self.config = config
        self.method = method_named(config.method)
        self.weight = lm_head_weight.detach()
        self.seed = seed
        self.updates = 0
        self._adapter: HeadAdapter | None = None
        self._previous: HeadAdapter | None = None
        self._past: Past | None = None
        self._past_before: Past | None = None
        self._can_roll_back = False
        self._pieces: list[Piece] = []
        self._dropped = 0
        self.pieces_per_reply = 1
        """As how many steps one reply is recorded."""

    @property
    def adapter(self) -> HeadAdapter | None:
        """The adapter to act with; None before the first accepted update."""
        return self._adapter

    @property
    def device(self) -> torch.device:
        """Where the adapter is."""
        return self.weight.device

    @property
    def wants_coordinates(self) -> bool:
        """Whether :meth:`record` needs to be told which tokens write coordinates."""
        return isinstance(self.config, TokensConfig) and self.config.tokens == "coordinates"

    @property
    def wants_frame(self) -> bool:
        """Whether :meth:`record` needs to be told which tokens end or frame a reply."""
        return self.config.protects

    @property
    def captured_bytes(self) -> int:
        """Memory of the captured H."""
        return sum(piece.hidden.nbytes for piece in self._pieces)

    # ------------------------------------------------------------------------------------------------ while acting

    def record(
        self, hidden: Tensor, tokens: Tensor, step: int, *, coordinates: Tensor | None = None, frame: Tensor | None = None
    ) -> None:
        """Keep what the head received for one reply.

        Args:
            hidden: H [n, d], the rows ``head_hooks`` captured, any floating dtype, any device.
            tokens: y [n], the tokens generated from them.
            step: The reply's index in the attempt, 0-based: the reward it gets.
            coordinates: True where a token is part of a coordinate, [n] bool; only needed for ``tokens=coordinates``.
            frame: True where a token ends or frames the reply, [n] bool; only needed if :attr:`wants_frame`.

        Raises:
            AdaptationError: shapes that do not belong together.
        """
        if hidden.ndim != 2 or tokens.shape != hidden.shape[:1] or hidden.shape[1] != self.weight.shape[1]:
            raise AdaptationError(
                f"A reply's H {tuple(hidden.shape)} and tokens {tuple(tokens.shape)} do not fit a head of d={self.weight.shape[1]}."
            )
        if hidden.shape[0] == 0:
            return
        hidden = hidden.detach()
        if hidden.device.type != "cpu" and self._on_accelerator() + hidden.nbytes > self.config.capture_mb * MB:
            hidden = hidden.cpu()
        marks = [None if mark is None else mark.detach().cpu() for mark in (coordinates, frame)]
        self._pieces.append(Piece(hidden, tokens.detach().cpu(), marks[0], marks[1], step))
        while self.captured_bytes - self._on_accelerator() > self.config.host_mb * MB and len(self._pieces) > 1:
            self._dropped += len(self._pieces.pop(0).tokens)

    def capture(self) -> Capture:
        """(H [n, d], y [n]) of every reply of the attempt in flight, in order."""
        return [(piece.hidden, piece.tokens) for piece in self._pieces]

    def capture_by_step(self, pieces: int = 1) -> list[list[tuple[Tensor, Tensor]]]:
        """:meth:`capture`, the parts of one reply together, where each was recorded as ``pieces`` steps."""
        found: dict[int, list[tuple[Tensor, Tensor]]] = {}
        for piece in self._pieces:
            found.setdefault(piece.step // pieces, []).append((piece.hidden, piece.tokens))
        return list(found.values())

    def start(self, adapter: HeadAdapter) -> None:
        """θ₁: begin from ``adapter``; nothing if the session has one already (it was loaded).

        Raises:
            UsageError: it is not of the mode that this learner moves.
        """
        if type(adapter) is not adapter_class(self.config.mode):
            raise UsageError(
                f"A session that adapts {self.config.mode} cannot start from a {type(adapter).__name__}.",
                "Use adapt.weights.mode=lora, or experience.weights.scope=none.",
            )
        if self._adapter is None:
            self._adapter = adapter

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What was recorded of the attempt in flight."""
        return tuple(self._pieces)

    @property
    def past(self) -> Past | None:
        """What is replayed of earlier attempts; None if nothing is."""
        return self._past

    def resume(self, adapter: HeadAdapter | None, past: Past | None) -> None:
        """Go on from an adapter, and from what is replayed with it."""
        self._adapter, self._past = adapter, past

    def _on_accelerator(self) -> int:
        return sum(piece.hidden.nbytes for piece in self._pieces if piece.hidden.device.type != "cpu")

    def discard(self) -> None:
        """Drop what was captured of the attempt in flight."""
        self._pieces, self._dropped = [], 0

    # ----------------------------------------------------------------------------------------- between two attempts

    def update(self, rewards: Sequence[float], guided: Capture | None = None) -> Update:
        """Learn from the captured attempt.  ``rewards``: one r in [-1, 1] per step.  The capture is dropped in every case.

        ``guided``: the same replies as they look under the new guidance, for a method that is :attr:`MethodConfig.guided`.

        Raises:
            AdaptationError: nothing was captured, a step has no reward or an impossible one, or NaN/Inf anywhere; θ is unchanged.
        """
        start, peak = time.perf_counter(), peak_memory_mb(self.weight)
        try:
            head, episode = self._attempt(rewards, guided)
            if not bool((episode.rewards != 0).any()):
                learned = Learned(None, {"T": head.T, "reason": "every reward is 0"})
            else:
                learned = self.method.rule(head, self._adapter, episode, self.config, seed=self.seed)
            new, dropped = learned.adapter, self._dropped
            replies = self._replies(head, episode) if new is not None else ()
            past = Past(head.H.cpu(), head.y.cpu(), learned.replay) if learned.replay is not None else None
        finally:
            self.discard()
        seconds = time.perf_counter() - start
        if new is not None:
            self._accept(new, past)
        now = peak_memory_mb(self.weight)
        numbers = learned.numbers | {
            "tokens_dropped": dropped,
            "mode": self.config.mode,
            "update": self.updates,
            "adapter_mb": round(new.nbytes / MB, 3) if new is not None else 0.0,
            # The high-water mark of the process or device, and by how much the update raised it above that of acting.
            "peak_memory_mb": round(now, 1),
            "extra_memory_mb": round(max(0.0, now - peak), 1),
        }
        return Update(self.config.method, new is not None, seconds, numbers, replies)

    def _accept(self, new: HeadAdapter, past: Past | None) -> None:
        """Act with ``new`` from now on."""
        self._previous, self._adapter, self._can_roll_back = self._adapter, new, True
        self._past_before, self._past = self._past, past
        self.updates += 1

    def _replies(self, head: HeadPass, episode: Episode) -> tuple[ReplyTokens, ...]:
        """What the update just made did to every token: from its own check, which has seen them all unless some were dropped."""
        if head.compared is None or self._dropped:
            return ()
        steps = episode.steps if episode.replayed is None else episode.steps[: -len(episode.replayed.margin)]
        before, after = ([round(v, 6) for v in logsigmoid(margin[: len(steps)]).tolist()] for margin in head.compared)
        numbers, sizes = steps.unique_consecutive(return_counts=True)
        ends = list(itertools.accumulate(sizes.tolist(), initial=0))
        spans = zip(numbers.tolist(), ends, ends[1:], strict=False)
        return tuple(ReplyTokens(step, tuple(before[a:b]), tuple(after[a:b])) for step, a, b in spans)

    def residual(self, rewards: Sequence[float]) -> dict[str, float]:
        """‖R‖ and ‖Δθ‖² of an update on the H recorded now (say, under a refined context), θ untouched: ROSA2 Theorem 4.1.

        Both in the one parametrisation that the theorem has, p linear in θ (ROSA Eq. 4), whatever the update's own is, and of the step
        as it is solved for, not halved.  The capture is dropped.

        Raises:
            AdaptationError: as :meth:`update`, or the method has no residual.
        """
        try:
            head, episode = self._attempt(rewards)
            numbers = self.method.rule(head, self._adapter, episode, self.config.as_in_the_theorem(), seed=self.seed).numbers
        finally:
            self.discard()
        if "residual_before" not in numbers and "reason" not in numbers:
            raise AdaptationError(
                f"The method {self.config.method} has no target, and so no residual.", "Use adapt.score_under=raw."
            )
        return {short: float(numbers.get(name, 0.0)) for short, name in RESIDUAL.items()}

    def _attempt(self, rewards: Sequence[float], guided: Capture | None = None) -> tuple[HeadPass, Episode]:
        """The capture as H [T, d], y [T] and the rewards of its tokens."""
        if not self._pieces:
            raise AdaptationError("No tokens of this attempt were captured.", "Act before adapting.")
        if any(not math.isfinite(r) or abs(r) > 1 for r in rewards):
            raise AdaptationError(f"Rewards must lie in [-1, 1], not {list(rewards)}.")
        last = max(piece.step for piece in self._pieces)
        if last >= len(rewards):
            raise AdaptationError(f"Step {last} was recorded, but only {len(rewards)} rewards were given, one per step.")
        device = self.weight.device
        hidden = torch.cat([piece.hidden.to(device) for piece in self._pieces])
        tokens = torch.cat([piece.tokens for piece in self._pieces])
        sizes = torch.tensor([len(piece.tokens) for piece in self._pieces])
        steps = torch.tensor([piece.step for piece in self._pieces]).repeat_interleave(sizes)
        replies = steps // self.pieces_per_reply
        coordinates = _joined([piece.coordinates for piece in self._pieces])
        frame = _joined([piece.frame for piece in self._pieces])
        r = torch.tensor(list(rewards), dtype=torch.float64)[steps]
        memory, past = self.config.memory_mb, self._past
        teacher, rest = None if guided is None else self._guided(guided, tokens), None
        if len(tokens) > self.config.max_tokens:
            # A T×T system of all of them would not fit: the most decided tokens have least to say (their π̃ − p is near 0).
            margin = HeadPass(self.weight, hidden, tokens, memory_mb=memory).moments(self._adapter).margin
            if (whole := self.config.response) is not None:  # of all that followed, also of what is dropped
                rest = rest_of(margin.cpu(), replies, frame if self.config.protects else None, whole_attempt=whole == "episode")
            chosen = margin.argsort(stable=True)[: self.config.max_tokens].sort().values.cpu()
            self._dropped += len(tokens) - len(chosen)
            hidden, tokens, steps, r, replies = hidden[chosen.to(device)], tokens[chosen], steps[chosen], r[chosen], replies[chosen]
            coordinates, frame, teacher, rest = (
                None if mark is None else mark[chosen] for mark in (coordinates, frame, teacher, rest)
            )
        own: dict[str, Any] = {"guided": teacher, "replies": replies, "rest": rest}
        if past is None:
            return HeadPass(self.weight, hidden, tokens, memory_mb=memory), Episode(r, steps, coordinates, frame, **own)
        n = min(len(past.tokens), self.config.max_tokens - len(tokens))  # the newest ones, which stand first
        margins = Replayed(past.margins.margin[:n], past.margins.moved[:n])
        hidden = torch.cat([hidden, past.hidden[:n].to(device, hidden.dtype)])
        none = torch.zeros(n, dtype=torch.bool)
        coordinates, frame = (None if mark is None else torch.cat([mark, none]) for mark in (coordinates, frame))
        episode = Episode(
            torch.cat([r, r.new_zeros(n)]), torch.cat([steps, steps.new_full((n,), int(steps.max()) + 1)]), coordinates,
            frame, margins if n else None, **own,
        )  # fmt: skip
        return HeadPass(self.weight, hidden, torch.cat([tokens, past.tokens[:n]]), memory_mb=memory), episode

    def _guided(self, guided: Capture, tokens: Tensor) -> Tensor:
        """Log-odds of the attempt's tokens under other guidance and the adapter in force, [T] float64 on the CPU."""
        same = torch.cat([y.cpu() for _, y in guided]) if guided else tokens[:0]
        if self._dropped or not torch.equal(same, tokens):
            raise AdaptationError(
                "What was scored under the guidance are not the attempt's replies.", "Raise adapt.weights.host_mb."
            )
        hidden = torch.cat([h.to(self.weight.device) for h, _ in guided])
        return HeadPass(self.weight, hidden, tokens, memory_mb=self.config.memory_mb).moments(self._adapter).margin.cpu()

    def rollback(self) -> None:
        """Undo the last accepted update.

        Raises:
            UsageError: there is no accepted update, or it was undone already.
        """
        if not self._can_roll_back:
            raise UsageError("There is no update to roll back.", "Only the last accepted update can be undone, and only once.")
        self._adapter, self._previous, self._can_roll_back = self._previous, None, False
        self._past, self._past_before = self._past_before, None
        self.updates -= 1

    # ------------------------------------------------------------------------------------------------------ on disk

    def save(self, folder: Path) -> bool:
        """Write the adapter (a LoRA head in PEFT's layout); False, and nothing written, before the first accepted update."""
        if self._adapter is None:
            return False
        self._adapter.save(folder)
        if self._past is not None:
            save_file({name: tensor.contiguous() for name, tensor in self._past.tensors().items()}, folder / REPLAY)
        (folder / STATE).write_text(json.dumps({"updates": self.updates, "config": self.config.model_dump()}, indent=2) + "\n")
        return True

    def load(self, folder: Path) -> None:
        """Continue from a saved adapter; what was captured and what could be undone is forgotten.

        Raises:
            StoreError: the folder holds no adapter, or one for another head or another mode.
        """
        adapter = load_adapter(folder, str(self.device))
        dtype = torch.float64 if self.weight.dtype == torch.float64 else torch.float32
        wanted = adapter_class(self.config.mode)
        if type(adapter) is not wanted:
            raise StoreError(f"{folder} holds a {type(adapter).__name__}, this session adapts a {wanted.__name__}.")
        V, d = self.weight.shape
        shape = adapter.head_shape(self.weight)
        if shape != (V, d):
            raise StoreError(
                f"{folder} holds an adapter for a head of {shape}, this model's is {(V, d)}.", "It belongs to another model."
            )
        state = folder / STATE
        try:
            updates = int(json.loads(state.read_bytes())["updates"]) if state.exists() else 1
        except (OSError, ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
            raise StoreError(f"{state} is corrupt: {error}.", "The adapter beside it cannot be gone on from.") from error
        self.updates = updates
        self._adapter, self._previous, self._can_roll_back = adapter.to(self.device, dtype), None, False
        self._past, self._past_before = _load_past(folder) if self.config.replays else None, None
        self.discard()


def _joined(marks: Sequence[Tensor | None]) -> Tensor | None:
    """Marks of all replies one after the other; None if one of them has none."""
    found = [mark for mark in marks if mark is not None]
    return torch.cat(found) if len(found) == len(marks) else None


def _load_past(folder: Path) -> Past | None:
    """What :meth:`HeadLearner.save` wrote for replaying; None if it wrote nothing.

    Raises:
        StoreError: it cannot be read.
    """
    path = folder / REPLAY
    if not path.exists():
        return None
    try:
        return Past.of(load_file(path))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise StoreError(f"{path} cannot be read: {error}.") from error


def peak_memory_mb(like: Tensor) -> float:
    """The high-water mark of memory so far in MB: of the CUDA device ``like`` lies on, else resident memory of this process."""
    if like.device.type == "cuda":
        return torch.cuda.max_memory_allocated(like.device) / MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
