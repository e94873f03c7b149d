"""ROSA's settings: one field per choice the paper makes or leaves open."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from policies.adapters.config import AdapterConfig
from policies.methods.config import MethodConfig, TokensConfig


class RosaConfig(AdapterConfig, TokensConfig, MethodConfig):
    """ROSA Eq. 3-7.  The defaults are this project's; the paper's own setting is the preset ``rosa-paper``."""

    method: Literal["rosa"] = Field(default="rosa", description="ROSA, Eq. 3-7.")

    # --- the target (Eq. 3)
    beta: float = Field(default=1.0, gt=0, description="β of Eq. 3: logit π̃ = logit p + r/β, in log-odds; smaller moves further.")
    target: Literal["token", "reply", "episode", "guided"] = Field(
        default="token",
        description="What Eq. 3 is about. token: every token, r/β each (paper). reply, episode: the whole reply or all replies of the "
        "attempt, r/β together, which moves a token the less the more open its continuation was. guided: no reward, but by how much the "
        "model itself finds a token more or less likely under the new guidance, in log-odds, divided by β; a pass per step (docs/rosa.md).",
    )
    protect: bool | None = Field(
        default=None,
        description="Tokens that end or frame a reply are never pushed away; null: where the target is a reply or an episode.",
    )
    anchor: bool = Field(
        default=True,
        description="Tokens that are not moved enter the equations with a shift of 0, so that they stay; false: they are left out.",
    )
    replay: bool = Field(
        default=False,
        description="The tokens of the session's earlier failed attempts enter the equations again, to be where their updates put them: "
        "what one update took away, a later one cannot give back. Their H is kept, in memory and beside the adapter.",
    )

    # --- the step (Eq. 4-7)
    linearization: Literal["probability", "log_odds"] = Field(
        default="log_odds", description="What is linear in θ: the probability p_i (paper, Eq. 4) or its log-odds."
    )
    solver: Literal["dual", "cg"] = Field(
        default="dual",
        description="dual: exact, in token space. cg: the paper's matrix-free conjugate gradient in parameter space.",
    )
    damping: float = Field(default=0.1, ge=0, description="λ, as a multiple of the mean diagonal of J Jᵀ.")
    cg_iterations: int = Field(default=10, ge=1, description="Iterations of the solver cg.")
    check: bool = Field(
        default=True,
        description="A step is taken only if ‖R‖ has fallen after it; false: it is taken as it was solved for (paper).",
    )
    max_halvings: int = Field(
        default=6,
        ge=0,
        description="A step after which ‖R‖ has not fallen is halved, this often at most; then it is refused. Of `check`.",
    )

    @property
    def replays(self) -> bool:
        return self.replay

    @property
    def guided(self) -> bool:
        return self.target == "guided"

    @property
    def protects(self) -> bool:
        return self.target != "token" if self.protect is None else self.protect

    @property
    def response(self) -> str | None:
        return self.target if self.target in ("reply", "episode") else None

    def as_in_the_theorem(self) -> RosaConfig:
        return self.model_copy(update={"linearization": "probability", "check": False})


PAPER: dict[str, Any] = {
    "beta": 0.5,
    "linearization": "probability",
    "rank": 1,
    "alpha": 8.0,
    "a_init": "random",
    "solver": "cg",
    "cg_iterations": 50,
    "damping": 0.0,
    "check": False,
    "tokens": "all",
}
"""The paper's own setting (App. D.5, Eq. 3-7): one solution of Eq. 7 per update, taken as it comes.

Our own choices in it, which the paper does not give: β; λ = 0 (``damping``; what rounding makes necessary is added); at most fifty
iterations of conjugate gradient.  Where nothing damps, the iterations do: docs/rosa.md has numbers.
"""
