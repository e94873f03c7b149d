"""The options of the words axis."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from envs.errors import UsageError
from retrospect.methods import check_name

OPENAI = "openai:"

NO_JUDGE = "a judge is a model, and engine=rules is not one: use words.engine=self or openai:<model>"


def known_engine(value: str) -> str:
    """An engine by name, as it is.

    Raises:
        ValueError: there is none of that name.
    """
    if value in {"rules", "self"} or (value.startswith(OPENAI) and value != OPENAI):
        return value
    raise ValueError(f"unknown engine {value!r}; use rules, self or openai:<model>")


class WordsConfig(BaseModel):
    """How a failure is turned into words (and, when asked for, into per-step credit)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str = Field(
        default="none",
        description="How the words learn between two attempts. textgrad: a textual gradient revises one guidance. reflexion: a memory "
        "of the last three attempts. my.module:method: a function of your own (retrospect/methods.py). none: they do not.",
    )
    engine: str = Field(
        default="rules",
        description="Who writes. rules: a fixed form, filled from the evidence of the failed attempt alone; no model. self: the "
        "policy's own backbone, frozen. openai:<model>: an OpenAI-compatible endpoint. Not given: self where the policy is a model that "
        "can write text, else rules.",
    )
    credit: Literal["sparse", "critique", "judge"] = Field(
        default="sparse",
        description="What the weights learn from a failure (`agentlab run --reward`), per step. sparse: -1 each (ROSA's +R). critique: "
        "from the critique of what visibly happened. judge: scored by a model (the papers' +M): one number for a whole reply "
        "where the task has a right answer, else one per step.",
    )
    judge_sees: Literal["reference", "problem"] = Field(
        default="reference",
        description="What a judge of whole replies is shown besides the reply. reference: the problem and its right answer. problem: that "
        "alone, as in deployment.",
    )
    judge_accepts: float = Field(
        default=0.5,
        ge=-1,
        le=1,
        description="Score of the judge from which an answer is accepted; it ends the session where the judge alone decides "
        "(env.feedback=judge).",
    )
    max_chars: int = Field(
        default=1200,
        ge=80,
        le=20_000,
        description="Longest guidance that a model may write, in characters; the form of the rules has bounds of its own.",
    )
    base_url: str | None = Field(
        default=None,
        description="OpenAI-compatible endpoint, e.g. http://localhost:8000/v1; null: the openai client's (OPENAI_BASE_URL).",
    )
    api_key_env: str = Field(
        default="OPENAI_API_KEY",
        description="Environment variable that holds the key; it may be unset where base_url is given (local servers need none).",
    )
    images: Literal["auto", "never"] = Field(
        default="auto", description="auto shows the endpoint screenshots until it refuses them once, then goes on with text."
    )
    max_images: int = Field(default=3, ge=0, le=20, description="Most screenshots in one request.")
    temperature: float = Field(default=0.0, ge=0, le=2, description="Of the engine's replies; 0 is greedy.")
    max_tokens: int = Field(default=1024, ge=16, le=1_000_000, description="Longest reply of the engine, in tokens.")
    timeout_s: float = Field(default=60.0, gt=0, le=604_800, description="Of one request, in seconds.")
    deadline_s: float = Field(
        default=180.0, gt=0, le=604_800, description="Of one reflection with all its requests and retries, in seconds."
    )
    max_retries: int = Field(
        default=3, ge=0, le=10, description="Further tries of one request after 429, 5xx, a timeout or a malformed reply."
    )
    backoff_s: float = Field(
        default=0.5,
        ge=0,
        le=60,
        description="Pause before the first retry, in seconds; doubles each time up to 8 s. A longer Retry-After header counts.",
    )
    usd_per_million_input: float = Field(
        default=0.0, ge=0, description="Price of a million prompt tokens in USD, for the cost column; 0: unknown, or free."
    )
    usd_per_million_output: float = Field(
        default=0.0, ge=0, description="Price of a million generated tokens in USD, for the cost column; 0: unknown, or free."
    )

    @model_validator(mode="after")
    def _a_judge_is_a_model(self) -> WordsConfig:
        if self.credit == "judge" and self.engine == "rules":
            raise ValueError(f"{NO_JUDGE}, or credit=critique for the credit that the rules read off the evidence")
        return self

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        try:
            return check_name(value)
        except UsageError as error:
            raise ValueError(str(error)) from error

    @field_validator("engine")
    @classmethod
    def _known_engine(cls, value: str) -> str:
        return known_engine(value)
