"""ROSA: one closed-form update of the head from one attempt and its reward (arXiv 2509.23166, Eq. 3-7).

    target      π̃_i = p_i e^{r_i/β} / Z_i,   that is   logit π̃_i = logit p_i + r_i/β                      (Eq. 3)
    step        min_Δ ‖J Δ − R‖² + λ‖Δ‖²,    R_i = π̃_i − p_i,   J_i = ∂p_i/∂θ                              (Eq. 4-6)
    solution    Δθ = Jᵀ c,   (J Jᵀ + λI) c = R                                                             (Eq. 7)

The paper solves for Δθ by conjugate gradient over all r(d+V) parameters.  Only T numbers are observed, so the same Δθ has T
unknowns: ``dual`` solves for them exactly, from inner products that one pass over the head gives (:mod:`policies.head_pass`).
``cg`` is the paper's solver; both solve the same :class:`Problem` and agree to rounding.

With m_i = logit p_i and Ĵ_i = ∂m_i/∂θ = ĝ_iᵀ ∂z_i/∂θ every observable is J = P Ĵ:

    log-odds      R_i = r_i/β          P_ii = 1
    probability   R_i = π̃_i − p_i      P_ii = p_i (1 − p_i)
    a reply k     its tokens' product P_k in the place of p_i:   P_ki = (1 − p_i)/(1 − P_k), and × P_k(1 − P_k) for probability

    K̂_ij = s² ( ⟨ĝ_i, ĝ_j⟩ ⟨A h_i, A h_j⟩ + ⟨Bᵀĝ_i, Bᵀĝ_j⟩ ⟨h_i, h_j⟩ )          LoRA head, A and B free
    K̂_ij = s² ⟨ĝ_i, ĝ_j⟩ ⟨A h_i, A h_j⟩                                             only B free
    K̂_ij = ⟨Wᵀĝ_i, Wᵀĝ_j⟩                                                          hidden-state shift

**Which parameters move.**  A random A (paper) is one of the unknowns, so A and B both move (at B = 0 the step of A is zero by
the formula).  An A with orthonormal rows that span the attempt's H makes s²⟨A h_i, A h_j⟩ = s²⟨h_i, h_j⟩: moving B alone is
then already the least-norm change Δ(W) = Σ_i a_i ĝ_i h_iᵀ of the *whole* head, A has nothing left to contribute, and stays
fixed.  Later updates append only directions that A does not span yet, with B = 0.
"""

from policies.rosa.cg import cg
from policies.rosa.solve import Problem, Solution, dual
from policies.rosa.step import Effect, Episode, rosa_step
from policies.rosa.target import Equations, probability_gap

__all__ = ["Effect", "Episode", "Equations", "Problem", "Solution", "cg", "dual", "probability_gap", "rosa_step"]
