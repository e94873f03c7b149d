"""ROSA: one closed-form update of the head from one attempt and its reward (arXiv 2509.23166, Eq. 1-7).

    aim         max_π  E_π[r] − β KL(π ‖ π_θ),   solved by   π̃(y) ∝ π_θ(y) e^{r(y)/β}                      (Eq. 1, 2)
    target      π̃_i = p_i e^{r_i/β} / Z_i,   that is   logit π̃_i = logit p_i + r_i/β                      (Eq. 3)   target.py
    step        min_Δ ‖J Δ − R‖² + λ‖Δ‖²,    R_i = π̃_i − p_i,   J_i = ∂p_i/∂θ                              (Eq. 4-6) solve.py
    solution    Δθ = Jᵀ c,   (J Jᵀ + λI) c = R                                                             (Eq. 7)   solve.py, cg.py
    update      θ ← θ + Δθ, checked on H, halved while it does not help                                              step.py

The paper solves for Δθ by conjugate gradient over all r(d+V) parameters.  Only T numbers are observed, so the same Δθ has T
unknowns: ``dual`` solves for them exactly, from inner products that one pass over the head gives (:mod:`policies.head_pass`).
``cg`` is the paper's solver; both solve the same problem and agree to rounding.

With m_i = logit p_i and Ĵ_i = ∂m_i/∂θ, which is the adapter's business (:mod:`policies.adapters`), every observable is J = P Ĵ:

    log-odds      R_i = r_i/β          P_ii = 1
    probability   R_i = π̃_i − p_i      P_ii = p_i (1 − p_i)
"""
