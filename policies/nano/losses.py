"""What is minimised: the reply's cross-entropy, and auxiliary losses whose heads exist in training only.

Cross-entropy alone teaches a network of this size the format and the priors, but not to look: the reply's few digits are too thin
a signal.  The auxiliary losses build the path from pixels to digits piece by piece: which characters each patch shows; which cell
holds the target and where in it (at the *middle* text block, so that the later ones can read the answer off); where each cell lies;
one attention head of the next block that looks at the target's cell while coordinates are written; and, below the last block, the
coordinates' digits at the token that opens them.  Without the last two the cell is found and the digits stay at chance for tens of
thousands of examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration

from policies.nano.data import CHARACTERS, IGNORED, TrainBatch
from policies.nano.fast import FastForward, FastOutput
from policies.nano.screen import CELLS, COORDINATE_TINT, SCREEN_HEIGHT, SCREEN_WIDTH

COORDINATE_TOKENS = 7
"""``480,580``."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the auxiliary losses; the reply's own is 1."""

    cell: float = 0.3
    pointer: float = 0.3
    copy: float = 0.15
    place: float = 0.05
    offset: float = 0.1
    digits: float = 0.3
    point: float = 0.5
    reading: float = 0.15


class Objective(nn.Module):
    """The model with its training-only heads."""

    def __init__(self, model: Qwen2VLForConditionalGeneration) -> None:
        super().__init__()
        sizes: Any = model.config
        d, dv = sizes.text_config.hidden_size, sizes.vision_config.embed_dim
        self.network = FastForward(model, COORDINATE_TINT, SCREEN_HEIGHT, SCREEN_WIDTH)
        self.cell = nn.Linear(d, 1)
        self.place = nn.Linear(d, CELLS)
        self.point = nn.Linear(d, 2)
        self.offset = nn.Linear(d, 2)
        self.digits = nn.Linear(d, 4 * 10)
        self.reading = nn.Linear(dv, CHARACTERS)
        nn.init.constant_(self.reading.bias, -5.0)

    def heads(self) -> list[nn.Module]:
        return [self.cell, self.place, self.point, self.reading, self.offset, self.digits]

    def forward(self, batch: TrainBatch, aux: LossWeights) -> tuple[Tensor, Tensor]:
        """(total loss, [B] mean cross-entropy of each row's reply)."""
        out: FastOutput = self.network(batch.inputs)
        nll = F.cross_entropy(out.logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="none")
        weighted = nll.view_as(batch.weights) * batch.weights  # [B, Q]
        rows = weighted.sum(1) / batch.weights.sum(1)
        total = weighted.sum() / batch.weights.sum()
        pointed = (batch.cell != IGNORED).float()
        count = pointed.sum().clamp(min=1)
        target = batch.cell.clamp(min=0)
        total = (
            total + aux.cell * (F.cross_entropy(self.cell(out.cells).squeeze(-1), target, reduction="none") * pointed).sum() / count
        )
        cells = F.layer_norm(out.cells, out.cells.shape[-1:])
        own = torch.arange(CELLS).expand(len(target), -1)
        total = total + aux.place * F.cross_entropy(self.place(cells).flatten(0, 1), own.flatten())
        total = total + aux.pointer * self._pointer_loss(out.pointer[:, 0], batch)
        total = total + aux.copy * self._copy_loss(out.pointer[:, 1], batch)
        there = cells.gather(1, target[:, None, None].expand(-1, 1, cells.shape[2])).squeeze(1)
        beside = F.smooth_l1_loss(self.offset(there), batch.offset, reduction="none", beta=0.1).sum(1)
        total = total + aux.offset * (beside * pointed).sum() / count
        at = batch.point_at[:, None, None]
        known = F.layer_norm(out.late, out.late.shape[-1:]).gather(1, at.expand(-1, 1, out.late.shape[2]))
        guess = self.digits(known.squeeze(1)).view(-1, 10, 4)
        total = total + aux.digits * (F.cross_entropy(guess, batch.digits, reduction="none").sum(1) * pointed).sum() / count
        opening = out.hidden.gather(1, at.expand(-1, 1, out.hidden.shape[2])).squeeze(1)
        off = F.smooth_l1_loss(self.point(opening), batch.point, reduction="none", beta=0.05).sum(1)
        total = total + aux.point * (off * pointed).sum() / count
        letters = F.binary_cross_entropy_with_logits(self.reading(out.patches), batch.patch_text.float(), reduction="none").sum(2)
        return total + aux.reading * (letters * batch.readable).mean(), rows.detach()

    @staticmethod
    def _pointer_loss(logits: Tensor, batch: TrainBatch) -> Tensor:
        """One attention head should look at the target's cell while the coordinates are written."""
        queries = torch.arange(logits.shape[1])[None]
        first = batch.point_at[:, None]
        writing = (queries >= first) & (queries < first + COORDINATE_TOKENS) & (batch.cell != IGNORED)[:, None]  # [B, Q]
        goal = (batch.inputs.image_start + batch.cell.clamp(min=0))[:, None].expand_as(writing)
        nll = F.cross_entropy(logits.flatten(0, 1), goal.flatten(), reduction="none").view_as(goal)
        return (nll * writing).sum() / writing.sum().clamp(min=1)

    @staticmethod
    def _copy_loss(logits: Tensor, batch: TrainBatch) -> Tensor:
        """Another head should look at the character of the instruction that is copied next."""
        copied = batch.source != IGNORED
        goal = batch.source.clamp(min=0)
        nll = F.cross_entropy(logits.flatten(0, 1), goal.flatten(), reduction="none").view_as(goal)
        return (nll * copied).sum() / copied.sum().clamp(min=1)
