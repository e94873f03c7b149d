"""The linearised step (ROSA Eq. 4-7) in token space: what both solvers are given, and the exact one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policies.adapters.base import Delta, HeadAdapter
from policies.head_pass import HeadPass, Moments
from policies.rosa.config import RosaConfig
from policies.rosa.target import Target, relative_gap


@dataclass(frozen=True)
class Problem:
    """min_Δ ‖J Δ − R‖² + λ‖Δ‖² over the T' tokens of ``target`` (Eq. 6), J = ∂value/∂θ of the ``free`` parameters."""

    head: HeadPass
    adapter: HeadAdapter
    free: tuple[str, ...]
    moments: Moments
    target: Target
    config: RosaConfig

    @property
    def margin(self) -> Tensor:
        """m of the tokens that enter, [T']."""
        return self.moments.margin[self.target.keep]

    @property
    def unit(self) -> float:
        """log of the equations' common unit.  Scaling J, R and λ together changes nothing but keeps p(1−p) from underflowing."""
        return float(self.target.log_slope(self.margin).max())

    @property
    def P(self) -> Tensor:
        """Diagonal of P, J = P Ĵ, [T'], in units of exp(``unit``)."""
        return torch.exp(self.target.log_slope(self.margin) - self.unit)

    @property
    def R(self) -> Tensor:
        """R [T'] (Eq. 5), in units of exp(``unit``)."""
        if self.target.linearization == "log_odds":
            return self.target.shift
        return self.P * relative_gap(self.margin, self.target.shift)


@dataclass(frozen=True)
class Solution:
    """Δθ, the absolute λ it was solved with (in the problem's unit), and how many iterations that took (0: direct)."""

    delta: Delta
    lam: float
    iterations: int = 0


def dual(problem: Problem) -> Solution:
    """The exact solution in token space (Eq. 7): (J Jᵀ + λI) c = R, Δθ = Jᵀc = Ĵᵀ P c."""
    head, adapter, keep, P = problem.head, problem.adapter, problem.target.keep, problem.P
    K = adapter.kernel(head, problem.moments, keep, problem.free)  # [T', T'] = Ĵ Ĵᵀ
    K = K.mul_(P[:, None]).mul_(P[None, :])  # J Jᵀ
    lam = ridge(float(K.diagonal().mean()), len(keep), problem.config.damping, head.dtype)
    c = solve_psd(K, lam, problem.R)  # [T']
    del K
    a = head.H.new_zeros(head.T, dtype=torch.float64)  # [T]
    a[keep] = P * c
    return Solution(adapter.pull(head, problem.moments, a, problem.free), lam)


def ridge(mean_diagonal: float, n: int, damping: float, precision: torch.dtype) -> float:
    """λ = damping × mean diagonal of J Jᵀ [n, n], at least what rounding in ``precision`` makes of it."""
    return max(damping, torch.finfo(precision).eps * n) * mean_diagonal


def solve_psd(K: Tensor, lam: float, R: Tensor) -> Tensor:
    """(K + λI)⁻¹ R, the least-norm solution if that is singular.  Overwrites K."""
    K.diagonal().add_(lam)
    L, info = torch.linalg.cholesky_ex(K)
    if int(info) == 0:
        x = torch.linalg.solve_triangular(L, R[:, None], upper=False)  # cholesky_solve would copy L
        return torch.linalg.solve_triangular(L.mT, x, upper=True)[:, 0]
    del L
    values, vectors = torch.linalg.eigh(K)
    cut = values.max() * K.shape[0] * torch.finfo(K.dtype).eps
    inverse = torch.where(values > cut, 1 / values, torch.zeros_like(values))
    return vectors @ (inverse * (vectors.T @ R))
