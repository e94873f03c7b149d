"""The paper's solver: matrix-free conjugate gradient over all parameters of the adapter, a JVP and a VJP per iteration (Eq. 7).

It differentiates the policy's own forward pass through the head, knows none of the closed forms of the adapters, and is therefore
also what those are tested against.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.func import jvp, vjp

from envs.errors import AdaptationError
from policies.adapters.base import Delta
from policies.rosa.solve import Problem, Solution, ridge

_one_jvp = threading.Lock()  # torch counts the levels of forward differentiation per process, not per thread
CHUNK = 2**24  # logits per piece of the T tokens; autograd keeps about six of them alive
CONVERGED = 1e-10  # ‖residual‖ relative to its start, from which more iterations are rounding


class Jacobian:
    """J of a problem's observables at θ, as products only."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.head, self.keep, self.adapter = problem.head, problem.target.keep, problem.adapter.widened()
        self.W = self.head.W.to(self.head.dtype)  # [V, d]
        theta = self.adapter.theta
        self.params: Delta = {name: theta[name].to(self.head.dtype).contiguous() for name in problem.free}
        self.unit = torch.exp(torch.tensor(-problem.unit, dtype=torch.float64, device=self.head.device))

    def _margins(self, params: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        return self.margins(params, rows, self.head.H[rows])

    def margins(self, params: Mapping[str, Tensor], rows: Tensor, h: Tensor) -> Tensor:
        """m of some tokens under adapter parameters ``params``: the head's forward pass.  ``rows`` [n], ``h`` [n, d] -> [n]."""
        y = self.head.y[rows][:, None]  # [n, 1]
        z = self.adapter.logits(h, self.W, params)  # [n, V]
        rest = z.scatter(1, y, -torch.inf).logsumexp(1)  # [n]
        return z.gather(1, y)[:, 0] - rest

    def _pieces(self) -> Iterator[Tensor]:
        yield from self.keep.split(max(1, CHUNK // self.head.V))

    def _values(self, margin: Tensor) -> Tensor:
        return self.problem.target.value(margin) * self.unit

    def forward(self, direction: Delta) -> Tensor:
        """J v [T'] float64."""
        with _one_jvp:
            change = [jvp(lambda p, rows=rows: self._margins(p, rows), (self.params,), (direction,))[1] for rows in self._pieces()]
            return jvp(self._values, (self.problem.margin,), (torch.cat(change).double(),))[1]

    def transposed(self, u: Tensor) -> Delta:
        """Jᵀ u.  ``u`` [T']."""
        (u_margin,) = vjp(self._values, self.problem.margin)[1](u)  # [T']
        total: Delta = {name: torch.zeros_like(value) for name, value in self.params.items()}
        for rows, piece in zip(self._pieces(), u_margin.split(max(1, CHUNK // self.head.V)), strict=True):
            (part,) = vjp(lambda p, rows=rows: self._margins(p, rows), self.params)[1](piece.to(self.head.dtype))
            for name in total:
                total[name] += part[name]
        return total


def cg(problem: Problem, jacobian: type[Jacobian] = Jacobian, *, converged: float = CONVERGED) -> Solution:
    """(JᵀJ + λI) Δ = JᵀR by at most ``cg_iterations`` steps of conjugate gradient from Δ = 0.

    Raises:
        AdaptationError: the iteration met NaN or Inf.
    """
    J, lam = jacobian(problem), damping_of(problem)
    x = {name: torch.zeros_like(value) for name, value in J.params.items()}
    r = J.transposed(problem.R)  # the residual of the normal equations
    p = dict(r)
    rr = start = inner(r, r)
    done = 0
    while done < problem.config.cg_iterations and rr > converged**2 * start:
        q = J.transposed(J.forward(p))
        q = {name: q[name] + lam * p[name] for name in q}
        curvature = inner(p, q)
        if not curvature > 0:  # NaN too
            raise AdaptationError(
                "Conjugate gradient met a direction without curvature.", "Raise adapt.damping, or use adapt.solver=dual."
            )
        step = rr / curvature
        x = {name: x[name] + step * p[name] for name in x}
        r = {name: r[name] - step * q[name] for name in r}
        rr, previous = inner(r, r), rr
        p = {name: r[name] + (rr / previous) * p[name] for name in p}
        done += 1
    return Solution(x, lam, done)


def inner(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """⟨left, right⟩ over all parameters."""
    return float(sum((left[name].double() * right[name].double()).sum() for name in left))


def damping_of(problem: Problem) -> float:
    """The absolute λ that ``dual`` would use, without T×T matrices."""
    diagonal = problem.adapter.kernel_diagonal(problem.head, problem.moments, problem.free)[problem.target.keep]  # [T']
    P2 = torch.exp(2 * (problem.target.log_slope(problem.margin) - problem.unit))
    return ridge(float((diagonal * P2).mean()), len(diagonal), problem.config.damping, problem.head.dtype)
