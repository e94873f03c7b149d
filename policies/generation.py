"""What goes into and comes out of the engine: a row of a batch, and the reply it becomes.

T tokens generated · d hidden size
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from policies.base import NO_PASSES, Passes
from policies.exclusion import Exclusion
from policies.head import HeadAdapter
from policies.sampling import SamplingConfig


@dataclass(frozen=True)
class Prompt:
    """A conversation ready for the model: its text with one image token per image, and the images at their final size."""

    text: str
    images: tuple[Any, ...]


@dataclass(frozen=True)
class Request:
    """One row of a batch.

    Attributes:
        prompt: From :meth:`Engine.prompt`.
        sampling: How to draw.
        seed: Of this row's random stream.
        adapter: What this session adds to the head; None is the frozen model.
        capture: Keep H.
        exclusion: What the reply must not be, if anything; it is drawn as if that did not exist (:mod:`policies.exclusion`).
    """

    prompt: Prompt
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    seed: int = 0
    adapter: HeadAdapter | None = None
    capture: bool = False
    exclusion: Exclusion | None = None


@dataclass(frozen=True)
class Search:
    """The most probable reply that counts, instead of one that is drawn (:mod:`policies.beam`).

    Attributes:
        prompt: From :meth:`Engine.prompt`.
        counts: Whether a reply's text counts; called in whichever thread runs the model, so it depends on its text alone.
        beams: Prefixes of one length that are followed.
        max_new_tokens: Longest reply.
        adapter, capture: As of a :class:`Request`.
    """

    prompt: Prompt
    counts: Callable[[str], bool]
    beams: int = 10
    max_new_tokens: int = 1500
    adapter: HeadAdapter | None = None
    capture: bool = False


@dataclass(frozen=True)
class Generation:
    """One reply.

    Attributes:
        text: Without special tokens.
        tokens: y [T] int64 on the CPU, the end-of-turn token included.
        hidden: H [T, d], row i is what ``lm_head`` received when token i was chosen; None if not captured.
        logprobs: log π(y_i) [T] float32 on the CPU, under the adapted model at temperature 1 and without penalties.
        finish: ``stop`` or ``length``.
        prompt_tokens: Length of the prompt, images included.
        passes: Rows of the model's calls that it took, see :class:`policies.base.Passes`.
        redrawn, redrawn_unparsable: Replies drawn before it and not taken, and those of them that are no action.
        drawn_tokens: Tokens of all of them and its own; None if there are no others.
        given: Tokens [start, end) that nobody chose: a thought that ran out of its budget was ended by them.
    """

    text: str
    tokens: Tensor
    hidden: Tensor | None
    logprobs: Tensor
    finish: str
    prompt_tokens: int
    passes: Passes = NO_PASSES
    redrawn: int = 0
    redrawn_unparsable: int = 0
    drawn_tokens: int | None = None
    given: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Score:
    """A teacher-forced pass over a given reply: H [T, d] and log π(y_i) [T] float32."""

    hidden: Tensor
    logprobs: Tensor


@dataclass
class FirstPass:
    """How a batch begins: what the model is called with to read the prompts.

    Attributes:
        inputs: ``input_ids`` [b, L] of what is not in ``cache`` yet, padded on the left, and what was seen.
        positions: Rotary positions of ``inputs``.
        next_position: [b], of the first generated token.
        mask: [b, cached + L], 0 where there is padding.
        cache: Keys and values of what was read before.
        prompt_tokens: Length of each whole prompt.
        after: Called once the prompts have been read.
    """

    inputs: dict[str, Any]
    positions: Tensor
    next_position: Tensor
    mask: Tensor
    cache: Any
    prompt_tokens: list[int]
    after: Callable[[], None] | None = None


class BatchRow:
    """Tokens of one reply while it is written; after its end, what the row still draws is ignored."""

    def __init__(self, limit: int, stop_ids: frozenset[int]) -> None:
        self._limit, self._stop_ids = limit, stop_ids
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.finish = ""

    def add(self, token: int, logprob: float) -> None:
        if self.finish:
            return
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if token in self._stop_ids:
            self.finish = "stop"
        elif len(self.tokens) >= self._limit:
            self.finish = "length"
