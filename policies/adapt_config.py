"""How weights are adapted between attempts: every hyper-parameter of ROSA and its baselines, and the named presets."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from envs.errors import UsageError, did_you_mean


class WeightAdaptConfig(BaseModel):
    """One value per choice the ROSA paper makes or leaves open; ``preset("rosa-paper")`` is the paper's own setting."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # rosa: ROSA Eq. 3-7 · rl: one policy-gradient step (App. E.4.1) · slot: likelihood steps without reward (control) · none
    method: Literal["rosa", "rl", "slot", "none"] = "rosa"
    # lora: z = W h + s·B A h · hidden: z = W (h + δ).  `slot` is always hidden.
    mode: Literal["lora", "hidden"] = "lora"

    # --- the LoRA head -------------------------------------------------------------------------------------------
    # Directions per update; null = one per token of the update (the exact least-norm change of the whole head), see max_rank.
    rank: int | None = Field(default=None, ge=1)
    # lora_alpha; s = alpha / rank.  null: s = 1.
    alpha: float | None = Field(default=None, gt=0)
    # random: drawn once per session, A and B both move (paper) · attempt: leading directions of the attempt's own H, only B
    # moves, directions add up over updates · rows: the H of the least confident tokens, orthonormalised, otherwise as attempt
    a_init: Literal["random", "attempt", "rows"] = "attempt"
    # Largest rank of a session's adapter; beyond it the adapter is cut back to its leading singular directions.
    # Memory per session: 4·max_rank·(d+V) bytes.
    max_rank: int = Field(default=256, ge=1)

    # --- the target (Eq. 3) --------------------------------------------------------------------------------------
    # logit π̃ = logit p + r/β: smaller moves further.
    beta: float = Field(default=0.5, gt=0)
    # Which tokens are rewarded · undecided: those with p < p_max · coordinates: those the policy marked as coordinates.
    tokens: Literal["all", "undecided", "coordinates"] = "undecided"
    p_max: float = Field(default=0.99, gt=0, le=1)
    # An attempt without one undecided token (a confident mistake) moves this many of its least certain ones; 0: no update then.
    fallback_tokens: int = Field(default=8, ge=0)
    # True: the other tokens enter the equations with a target shift of 0, so that they stay; False: they are left out.
    anchor: bool = True
    # token: one equation per token · sequence: one per reply, for the probability of its (selected) tokens together.
    granularity: Literal["token", "sequence"] = "token"

    # --- the step (Eq. 4-7) --------------------------------------------------------------------------------------
    # What is linear in θ: probability p_i (paper, Eq. 4) or its log-odds.
    linearization: Literal["probability", "log_odds"] = "log_odds"
    # dual: exact, in token space · cg: the paper's matrix-free conjugate gradient in parameter space.
    solver: Literal["dual", "cg"] = "dual"
    # λ = damping × mean diagonal of J Jᵀ.
    damping: float = Field(default=0.1, ge=0)
    cg_iterations: int = Field(default=10, ge=1)
    cg_tolerance: float = Field(default=1e-10, ge=0)
    # A step after which ‖R‖ has not fallen is halved, this often at most; then it is refused.
    max_halvings: int = Field(default=6, ge=0)
    # θ ← decay·θ before each update: 1 adds updates up, 0 keeps the last one only.
    decay: float = Field(default=1.0, ge=0, le=1)

    # True: the tokens of the session's earlier failed attempts enter the equations again, to be where their updates put them:
    # what one update took away, a later one cannot give back.  Their H is kept, in memory and beside the adapter.
    replay: bool = False

    # --- rl and slot ---------------------------------------------------------------------------------------------
    # rl: Δθ = lr · Σ_i r_i ∂log p_i/∂θ.
    lr: float = Field(default=0.1, gt=0)
    # slot: AdamW steps and learning rate (the SLOT paper's own: 3-5 steps, 0.01).
    slot_steps: int = Field(default=5, ge=1)
    slot_lr: float = Field(default=0.01, gt=0)

    # --- memory --------------------------------------------------------------------------------------------------
    # Working memory of an update in MB (T×T matrices come on top); null: 384 on a CPU, 160 on an accelerator.
    memory_mb: float | None = Field(default=None, gt=0)
    # Captured H on the accelerator, in MB; beyond it H goes to host memory.  0: always host memory.
    capture_mb: float = Field(default=256, ge=0)
    # Captured H in host memory, in MB; beyond it the oldest steps are dropped (and counted).
    host_mb: float = Field(default=4096, gt=0)
    # Most tokens in one system (the Gram matrix is T×T); of a longer attempt the least confident ones are taken.
    max_tokens: int = Field(default=4096, ge=1)

    @property
    def scale(self) -> float:
        """s."""
        return 1.0 if self.alpha is None or self.rank is None else self.alpha / self.rank


PRESETS: dict[str, dict[str, Any]] = {
    "none": {"method": "none"},
    # Token rank, log-odds and undecided tokens from a prototype's measurements; β, of greedy retries, from benchmarks/sweep.py.
    "rosa": {"beta": 1.0},
    # ROSA App. D.5 and Eq. 3-7 to the letter; λ is not given in the paper.
    "rosa-paper": {
        "linearization": "probability",
        "rank": 1,
        "alpha": 8.0,
        "a_init": "random",
        "solver": "cg",
        "tokens": "all",
    },
    "rl": {"method": "rl", "rank": 1, "alpha": 8.0, "a_init": "random", "tokens": "all"},
    "slot": {"method": "slot", "mode": "hidden", "tokens": "all"},
}


def preset(name: str, **changes: Any) -> WeightAdaptConfig:
    """A named setting, with single values changed.

    Raises:
        UsageError: no such preset.
    """
    if name not in PRESETS:
        raise UsageError(f"There is no weight adaptation {name!r}.", did_you_mean(name, PRESETS, what="adaptation"))
    return WeightAdaptConfig(**{**PRESETS[name], **changes})
