"""``experience``: what a session takes from earlier ones, and leaves for later ones."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from policies.prior.config import PriorConfig
from retrospect.config import known_engine


class ExperienceConfig(BaseModel):
    """Off unless a directory is named."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dir: Path | None = Field(
        default=None,
        description="Directory that sessions read when they start and add to when they end (`agentlab run --experience`); null: none.",
    )
    every: int = Field(
        default=16,
        ge=1,
        description="Sessions of a round. All of a round read what was there when it began; what they leave is added when it ends.",
    )
    add: bool = Field(default=True, description="Add to the directory; false: only read it.")
    foreign: bool = Field(
        default=False,
        description="Also read what another model or another benchmark left. Stored tokens of another model are never used.",
    )
    lessons: int = Field(default=3, ge=0, le=20, description="Most lessons that a session is shown; 0: none are shown or written.")
    examples: int = Field(
        default=4, ge=0, le=64, description="Solved questions shown before a question, to policies that can be shown some; 0: none."
    )
    same_name: bool = Field(
        default=True,
        description="Examples, and the tokens near a task, only from tasks of the same name (of a benchmark that has every task "
        "once: of the same domain); false: from whichever are most like it.",
    )
    credited: bool = Field(
        default=False,
        description="Examples and stored weights are given to a session as probably as those of its task name that had them did better "
        "than those that had not (Thompson sampling); false: always.",
    )
    engine: str | None = Field(
        default=None,
        description="Who writes the lessons: rules, self or openai:<model>, with the other settings of adapt.words; null: who writes "
        "the words (adapt.words.engine) where words are learned, else self where the policy can write text, else rules.",
    )
    weights: PriorConfig = PriorConfig()

    @field_validator("engine")
    @classmethod
    def _known_engine(cls, value: str | None) -> str | None:
        return None if value is None else known_engine(value)
