"""One attempt's H and y against the head: everything the weights axis needs, in passes over chunks of the vocabulary.

No forward or backward pass of the backbone, and never a T×V matrix (beyond a cache within a stated budget).

Tokens are described by their **margin** m_i = logit p_i = z_i[y_i] − log Σ_{v≠y_i} exp z_iv.  It is formed from the
log-sum-exp of the *rest* of the vocabulary, so it keeps its digits where p_i rounds to 0 or 1.  With the distribution of
the rest, ρ_i = q_i without y_i, renormalised, the gradients of all token quantities share one vector

    ĝ_i = onehot(y_i) − ρ_i          ∂m_i/∂θ = ĝ_iᵀ ∂z_i/∂θ        1 < ‖ĝ_i‖² ≤ 2
    g_i = onehot(y_i) − q_i = (1 − p_i) ĝ_i        (the gradient of log p_i, ROSA Eq. 5)

Letters as in :mod:`policies.adapters.base`; V runs in slices lo:hi.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from envs.errors import AdaptationError

MB = 2**20
BLOCK = 128  # rows of a block of the symmetric Gram; small enough to skip most of the lower half, large enough for the BLAS
ROWS = 1024  # rows of B that are widened to float64 at a time


@dataclass(frozen=True)
class Moments:
    """What a pass leaves behind.  All float64, on the head's device.

    Attributes:
        margin: m [T].
        target: z_i[y_i] [T].
        rest: log Σ_{v≠y_i} exp z_iv [T].
        g2: ‖ĝ_i‖² [T], if asked for.
        gram: ⟨ĝ_i, ĝ_j⟩ [T, T], if asked for.
        gB: Bᵀĝ_i [T, r], if a B was given.
        gW: Wᵀĝ_i [T, d], if asked for.
    """

    margin: Tensor
    target: Tensor
    rest: Tensor
    g2: Tensor | None = None
    gram: Tensor | None = None
    gB: Tensor | None = None
    gW: Tensor | None = None


class Added(Protocol):
    """What is added to the frozen head's logits: an adapter, as far as a pass over the vocabulary has to know it."""

    def project(self, hidden: Tensor) -> Tensor | None:
        """Its part that does not depend on the vocabulary.  ``hidden`` [n, d] -> [n, r] or None."""

    def chunk(self, projected: Tensor | None, weight: Tensor, lo: int, hi: int) -> Tensor:
        """Logits added to the slice lo:hi.  ``weight`` = W[lo:hi] [hi-lo, d] -> [n or 1, hi-lo]."""


def working_mb(device: torch.device) -> float:
    """Memory of a pass in MB: what keeps the logits of 512 tokens on a CPU, and an accelerator busy."""
    return 384 if device.type == "cpu" else 160


class Chunk(NamedTuple):
    """Logits of a slice lo:hi of the vocabulary.

    Attributes:
        z: [T, hi-lo], −inf at the y_i of this slice; a buffer that the next chunk overwrites.
        added: What the adapter added to z, [T or 1, hi-lo]; None without an adapter.
        rows: The tokens i whose y_i lies in the slice.
        columns: Their y_i − lo.
    """

    lo: int
    hi: int
    z: Tensor
    added: Tensor | None
    rows: Tensor
    columns: Tensor


class HeadPass:
    """H [T, d] and y [T] of one attempt before the frozen head W [V, d].

    Float64 heads are worked in float64, all others in float32 (bf16 logits step by 0.06 and more); the T×T results and
    all sums over tokens are float64.

    Args:
        weight: W [V, d], any floating dtype.
        hidden: H [T, d].
        tokens: y [T].
        memory_mb: Working memory: chunk buffers, and base logits W h kept for the next pass as far as they fit;
            None: :func:`working_mb`.  T×T matrices (24·T² bytes at most) come on top.

    Raises:
        AdaptationError: no tokens, shapes that do not belong together, NaN or Inf in H or W.
    """

    def __init__(self, weight: Tensor, hidden: Tensor, tokens: Tensor, *, memory_mb: float | None = None) -> None:
        if hidden.ndim != 2 or tokens.shape != hidden.shape[:1] or hidden.shape[1] != weight.shape[1]:
            raise AdaptationError(
                f"H {tuple(hidden.shape)}, y {tuple(tokens.shape)} and W {tuple(weight.shape)} do not belong together.",
                "Expected H [T, d], y [T] and W [V, d].",
            )
        if hidden.shape[0] == 0:
            raise AdaptationError("The attempt has no tokens to learn from.", "Record the attempt's hidden states while acting.")
        self.dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        self.W, self.device = weight.detach(), weight.device  # [V, d]
        self.H = hidden.detach().to(self.device, self.dtype)  # [T, d]
        self.y = tokens.detach().to(self.device, torch.long)  # [T]
        self.T, self.d = self.H.shape
        self.V = weight.shape[0]
        if not bool(torch.isfinite(self.H).all()):
            raise AdaptationError("The captured hidden states contain NaN or Inf.", "The attempt is unusable; nothing was changed.")
        if int(self.y.min()) < 0 or int(self.y.max()) >= self.V:
            raise AdaptationError(f"A recorded token lies outside the vocabulary of {self.V}.")
        self._plan(working_mb(self.device) if memory_mb is None else memory_mb)
        self.compared: tuple[Tensor, Tensor] | None = None
        """Margins [T] under the old and the new adapter of the last :meth:`compare`."""
        self._cache: dict[int, Tensor] = {}
        self._in_chunk = self._sort_tokens()

    def _plan(self, memory_mb: float) -> None:
        """Columns per chunk, and how many chunks of logits are kept."""
        room = memory_mb * MB / (torch.finfo(self.dtype).bits // 8)
        # A chunk costs [T, c] logits, what an adapter adds to them, and a wide copy [c, d] of the head's slice.
        columns = min(64 * MB / 4, room / 6) // (self.T + self.d)
        if self.device.type == "cpu":  # sums and exponentials run in the processor's cache, products want a thousand columns
            columns = min(columns, max(1024, MB // self.T))
        self.step = int(max(2, min(self.V, columns)))
        self._cacheable = int((room - 3 * self.step * (self.T + self.d)) // (self.T * self.step))

    def _sort_tokens(self) -> list[tuple[Tensor, Tensor]]:
        """For every chunk, the rows i whose y_i lies in it and the column of y_i: no device round trip inside the loops."""
        y = self.y.cpu()
        chunk = y // self.step
        out = []
        for k in range(-(-self.V // self.step)):
            rows = (chunk == k).nonzero()[:, 0]
            out.append((rows.to(self.device), (y[rows] - k * self.step).to(self.device)))
        return out

    def _base(self, k: int, lo: int, hi: int, z: Tensor) -> None:
        """W h of one chunk into ``z`` [T, hi-lo]: from the cache, or computed (and kept if there is room)."""
        if (kept := self._cache.get(k)) is not None:
            z.copy_(kept)
            return
        torch.mm(self.H, self.W[lo:hi].to(self.dtype).T, out=z)
        # One row is enough: H is finite, so a NaN or Inf in row v of W makes column v of z NaN or Inf for every token.
        if not bool(torch.isfinite(z[0]).all()):
            raise AdaptationError("The head's logits contain NaN or Inf.", "Check the model's weights; nothing was changed.")
        if len(self._cache) < self._cacheable:
            self._cache[k] = z.clone()

    def _rest_chunks(self, adapter: Added | None, zy: Tensor) -> Iterator[Chunk]:
        """Logits chunk by chunk with y_i taken out (−inf), z_i[y_i] written to ``zy`` [T]."""
        projected = adapter.project(self.H) if adapter is not None else None
        buffer = torch.empty(self.T * self.step, dtype=self.dtype, device=self.device)
        for k, lo in enumerate(range(0, self.V, self.step)):
            hi = min(lo + self.step, self.V)
            z = buffer[: self.T * (hi - lo)].view(self.T, hi - lo)
            self._base(k, lo, hi, z)
            added = None
            if adapter is not None:
                z += (added := adapter.chunk(projected, self.W[lo:hi], lo, hi))
            rows, columns = self._in_chunk[k]
            zy[rows] = z[rows, columns].to(zy.dtype)
            z[rows, columns] = -torch.inf
            yield Chunk(lo, hi, z, added, rows, columns)

    def moments(
        self, adapter: Added | None = None, *, gram: bool = False, g2: bool = False, B: Tensor | None = None, gW: bool = False
    ) -> Moments:
        """One pass over V: margins, and on request the inner products of ROSA's normal equations in token space.

        The softmax is never normalised before the pass ends: sums are kept relative to a running maximum and rescaled when it
        grows, so that logits are formed once.

        Args:
            adapter: What is added to the logits; None is the frozen head.
            gram, g2, gW: See :class:`Moments`.
            B: [V, r], for :attr:`Moments.gB`.

        Raises:
            AdaptationError: NaN or Inf in the logits.
        """
        zy, total, square = (self.H.new_zeros(self.T, dtype=torch.float64) for _ in range(3))
        top = self.H.new_full((self.T, 1), -torch.inf)  # running maximum over the rest
        S = self.H.new_zeros(self.T, self.T) if gram else None  # Σ_v e_iv e_jv
        ZY = self.H.new_empty(self.T, self.T) if gram else None  # z_i[y_j]
        B = None if B is None else B.to(self.dtype)
        EB = self.H.new_zeros(self.T, B.shape[1]) if B is not None else None
        EW = self.H.new_zeros(self.T, self.d) if gW else None
        for lo, hi, z, _, rows, columns in self._rest_chunks(adapter, zy):
            if ZY is not None:
                ZY[:, rows] = z[:, columns]
            new = torch.maximum(top, z.amax(1, keepdim=True))
            shrink, top = (top - new).exp_(), new  # [T, 1], 0 at the first chunk
            E = z.sub_(top).exp_()  # [T, c], 0 at y_i
            total = total * shrink[:, 0].double() + E.sum(1).double()
            if g2:
                square = square * shrink[:, 0].double() ** 2 + torch.linalg.vector_norm(E, dim=1).double() ** 2
            if S is not None:
                S.mul_(shrink).mul_(shrink.T)
                _add_upper_gram(S, E)
            if EB is not None and B is not None:
                EB.mul_(shrink).addmm_(E, B[lo:hi])
            if EW is not None:
                EW.mul_(shrink).addmm_(E, self.W[lo:hi].to(self.dtype))
        rest = top[:, 0].double() + total.log()  # [T]
        margin = zy - rest
        if not bool(torch.isfinite(margin).all()):
            raise AdaptationError("The log-odds of a token are not finite.", "The adapter or the head holds NaN or Inf.")
        norm = (1.0 / total)[:, None]  # [T, 1]
        return Moments(
            margin=margin,
            target=zy,
            rest=rest,
            g2=1 + square * norm[:, 0] ** 2 if g2 else None,
            gram=self._gram(S, ZY, norm, rest) if S is not None and ZY is not None else None,
            gB=B[self.y].double() - EB.double() * norm if B is not None and EB is not None else None,
            gW=self.W[self.y].double() - EW.double() * norm if EW is not None else None,
        )

    def _gram(self, S: Tensor, ZY: Tensor, norm: Tensor, rest: Tensor) -> Tensor:
        """⟨ĝ_i, ĝ_j⟩ = [y_i = y_j] − ρ_i[y_j] − ρ_j[y_i] + ⟨ρ_i, ρ_j⟩, [T, T] float64, symmetric."""
        gram = S.new_empty(self.T, self.T, dtype=torch.float64)
        same = self.y[:, None] == self.y[None, :]
        for lo in range(0, self.T, BLOCK):  # of S the upper half is there; wide copies of a block only
            rows, right = slice(lo, lo + BLOCK), slice(lo, None)
            block = S[rows, right].double().mul_(norm[rows]).mul_(norm[right].T)
            block -= (ZY[rows, right].double() - rest[rows, None]).exp_()  # ρ_i[y_j]; exp(−inf) = 0 where y_j = y_i
            block -= (ZY[right, rows].double() - rest[right, None]).exp_().T
            block += same[rows, right]
            gram[right, rows], gram[rows, right] = block.T, block
        return gram

    def spread(self, adapter: Added | None, moments: Moments, U: Tensor) -> Tensor:
        """Ĝᵀ U = Σ_i ĝ_i u_iᵀ [V, r] for ``U`` [T, r].  ``moments``: under ``adapter``."""
        rest, zy = moments.rest.to(self.dtype)[:, None], torch.empty(self.T, dtype=torch.float64, device=self.device)
        out, minus = torch.empty(self.V, U.shape[1], dtype=self.dtype, device=self.device), -U
        for lo, hi, z, *_ in self._rest_chunks(adapter, zy):
            torch.mm(z.sub_(rest).exp_().T, minus, out=out[lo:hi])  # −ρᵀU
        return out.index_add_(0, self.y, U)

    def compare(self, old: Added | None, new: Added, before: Moments) -> tuple[Tensor, Tensor]:
        """Margins under ``new`` [T] and KL(π_new ‖ π_old) per token [T], in one pass.  ``before``: moments under ``old``."""
        zy = torch.empty(self.T, dtype=torch.float64, device=self.device)
        top = torch.full((self.T, 1), -torch.inf, dtype=self.dtype, device=self.device)
        total = torch.zeros(self.T, dtype=torch.float64, device=self.device)
        moved_sum = torch.zeros_like(total)  # Σ_{v≠y} e_v (z'_v − z_v)
        p_old = old.project(self.H) if old is not None else None
        for lo, hi, z, change, *_ in self._rest_chunks(new, zy):
            assert change is not None
            if old is not None:
                change -= old.chunk(p_old, self.W[lo:hi], lo, hi)
            best = torch.maximum(top, z.amax(1, keepdim=True))
            shrink, top = (top - best).exp_()[:, 0].double(), best
            E = z.sub_(top).exp_()
            total = total * shrink + E.sum(1).double()
            moved_sum = moved_sum * shrink + E.mul_(change).sum(1).double()
        rest = top[:, 0].double() + total.log()
        margin = zy - rest
        self.compared = (before.margin, margin)
        p = margin.sigmoid()
        mean_change = p * (zy - before.target) + (-margin).sigmoid() * moved_sum / total  # Σ_v q'_v (z'_v − z_v)
        kl = mean_change - (torch.logaddexp(zy, rest) - torch.logaddexp(before.target, before.rest))
        return margin, kl.clamp_min(0.0)

    def drop(self) -> None:
        """Free the cached logits."""
        self._cache.clear()


def _add_upper_gram(S: Tensor, E: Tensor) -> None:
    """S += E Eᵀ on and above the diagonal blocks.  ``S`` [T, T], ``E`` [T, c]."""
    for lo in range(0, S.shape[0], BLOCK):
        hi = min(lo + BLOCK, S.shape[0])
        S[lo:hi, lo:].addmm_(E[lo:hi], E[lo:].T)
