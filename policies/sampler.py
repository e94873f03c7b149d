"""Drawing tokens row by row, so that what one session draws never depends on who shares its batch.

b rows of the batch · V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from envs.errors import PolicyError
from policies.sampling import SamplingConfig


class Sampler:
    """The next token of every row, each row under its own settings and from its own generator.

    A draw is ``argmax_v (z_v / temperature + g_v)`` over the nucleus, with Gumbel noise g from a CPU generator: the same
    noise whatever the device and the batch.  Temperature 0 is ``argmax_v z_v``.
    """

    def __init__(self, settings: Sequence[SamplingConfig], seeds: Sequence[int], prompts: Sequence[Tensor | None] = ()) -> None:
        """``prompts``: token ids of each row's prompt; needed of rows with a repetition penalty."""
        self._settings = list(settings)
        self._prompts = list(prompts)
        self._seen: Tensor | None = None  # [b, V], which tokens a row already holds
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._counts: Tensor | None = None

    def draw(self, logits: Tensor) -> Tensor:
        """``logits`` [b, V] float32 -> token ids [b].

        Raises:
            PolicyError: logits that are not numbers.
        """
        if torch.isnan(logits).any():
            raise PolicyError(
                "The model's logits are not numbers (NaN).",
                "Try another dtype (--set model.dtype=float32), and roll back the last update.",
            )
        if self._seen is not None or any(s.repetition_penalty != 1 for s in self._settings):
            logits = self._less_of_the_same(logits)
        if any(s.frequency_penalty for s in self._settings):
            logits = self._penalised(logits)
        tokens = logits.argmax(dim=-1)  # [b]
        for row, settings in enumerate(self._settings):
            if settings.temperature > 0:
                tokens[row] = self._draw_row(logits[row], settings, self._generators[row])
        if self._counts is not None:
            self._counts[torch.arange(len(tokens), device=tokens.device), tokens] += 1
        if self._seen is not None:
            self._seen[torch.arange(len(tokens), device=tokens.device), tokens] = True
        return tokens

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows of the next logits, in this order."""
        self._settings = [self._settings[i] for i in rows]
        self._generators = [self._generators[i] for i in rows]
        if self._counts is not None:
            self._counts = self._counts[list(rows)]
        if self._seen is not None:
            self._seen = self._seen[list(rows)]

    def _less_of_the_same(self, logits: Tensor) -> Tensor:
        """The repetition penalty of Keskar et al. (2019), as transformers' ``RepetitionPenaltyLogitsProcessor`` has it."""
        if self._seen is None:
            self._seen = torch.zeros_like(logits, dtype=torch.bool)
            for row, prompt in enumerate(self._prompts):
                if prompt is not None:
                    known = prompt[prompt < logits.shape[1]]  # a picture's token may have no logit
                    self._seen[row, known.to(logits.device)] = True
        penalty = torch.tensor([s.repetition_penalty for s in self._settings], device=logits.device)[:, None]
        return torch.where(self._seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)

    def _penalised(self, logits: Tensor) -> Tensor:
        if self._counts is None:
            self._counts = torch.zeros_like(logits)
        penalty = torch.tensor([s.frequency_penalty for s in self._settings], device=logits.device)
        return logits - penalty[:, None] * self._counts

    @staticmethod
    def _draw_row(z: Tensor, settings: SamplingConfig, generator: torch.Generator) -> Tensor:
        z = nucleus(z, settings)  # [V]
        noise = torch.empty(z.shape, dtype=torch.float32).exponential_(generator=generator)  # -log of it is Gumbel
        return (z - noise.log().to(z.device)).argmax()


def nucleus(z: Tensor, settings: SamplingConfig) -> Tensor:
    """The logits that are drawn from: ``z`` [V] at a temperature above 0, -inf outside the nucleus."""
    z = z / settings.temperature
    if settings.top_p < 1:
        ordered, index = z.sort(descending=True)
        p = ordered.softmax(dim=-1)
        outside = p.cumsum(dim=-1) - p >= settings.top_p  # the most probable token has 0 before it: it always stays
        z = z.index_fill(0, index[outside], -torch.inf)
    return z
