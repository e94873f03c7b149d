"""Any vision model behind an OpenAI-compatible endpoint, asked in UI-TARS's protocol: no weights to adapt, but words work."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from typing import Any

import openai
import tenacity
from openai import OpenAI
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from envs.base import TaskSpec
from envs.errors import InfrastructureError, PolicyError, SetupError, UsageError
from policies.base import Policy, SamplingConfig
from policies.checkpoint import FAMILIES, CheckpointSettings
from policies.families.ui_tars.prompt import Message, Platform, wording
from policies.families.ui_tars.session import Draw, ProtocolSession

FACTOR = 28
"""Sides of a screenshot are made multiples of this before it is sent, so that pixel coordinates refer to what the model saw."""


class ChatOptions(BaseModel):
    """How the endpoint is reached.

    Attributes:
        base_url: Of the endpoint; default ``OPENAI_BASE_URL``, or OpenAI itself.
        api_key_env: Environment variable that holds the key.  (The key itself is no option: a run writes its options down.)
        timeout_s: Of one request.
        tries: Requests per reply before the attempt is void.
        max_wait_s: Longest pause between two of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = Field(default=120.0, gt=0)
    tries: int = Field(default=4, ge=1)
    max_wait_s: float = Field(default=20.0, ge=0)


def load_chat_policy(model: str, sampling: SamplingConfig, options: Mapping[str, Any]) -> ChatPolicy:
    """The policy ``openai:<model>``.

    Raises:
        UsageError: no model name, or an unknown option.
        SetupError: no key for the endpoint.
    """
    if not model:
        raise UsageError("openai: needs the name of a model.", "For example openai:ui-tars-1.5-7b with OPENAI_BASE_URL set.")
    own = {k: v for k, v in options.items() if k in ChatOptions.model_fields}
    rest = {k: v for k, v in options.items() if k not in own and k != "platform"}
    family = FAMILIES["qwen2_vl" if rest.get("prompt") == "v1" else "qwen2_5_vl"]
    try:
        chat = ChatOptions.model_validate(own)
        settings = CheckpointSettings.model_validate(family.model_dump() | rest)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        known = (*ChatOptions.model_fields, *CheckpointSettings.model_fields, "platform")
        raise UsageError(f"Bad policy option: {details}.", f"Options: {', '.join(known)}.") from error
    platform = options.get("platform")
    if platform not in (None, "computer", "mobile"):
        raise UsageError(f"Unknown platform {platform!r}.", "Use computer or mobile, or leave it out.")
    return ChatPolicy(model, chat, settings, sampling, platform)


class ChatPolicy(Policy):
    """A model somewhere else; sessions share the client, which is safe to use from several threads."""

    adaptable = False

    def __init__(
        self,
        model: str,
        chat: ChatOptions,
        settings: CheckpointSettings,
        sampling: SamplingConfig,
        platform: Platform | None = None,
    ) -> None:
        self.name = f"openai:{model}"
        self.model, self.chat, self.settings, self.sampling, self.platform = model, chat, settings, sampling, platform
        base_url = chat.base_url or os.environ.get("OPENAI_BASE_URL")
        key = os.environ.get(chat.api_key_env)
        if not key and not base_url:
            raise SetupError(
                "No key for the OpenAI endpoint.", f"Set {chat.api_key_env}, or OPENAI_BASE_URL for an endpoint of your own."
            )
        # Local servers want no key, but the client does.
        self.client = OpenAI(api_key=key or "none", base_url=base_url, timeout=chat.timeout_s, max_retries=0)

    def open(self, task: TaskSpec, *, seed: int, adapt: Any = None) -> ChatSession:
        if adapt is not None and getattr(adapt, "method", "") != "none":
            raise UsageError(
                f"The weights of {self.name} are out of reach, they cannot be adapted.",
                "Use --adapt none, textgrad or reflexion, or a policy that runs in this process.",
            )
        return ChatSession(self, task, seed=seed)

    def describe(self) -> dict[str, Any]:
        _, source = wording(self.settings.prompt, self.platform or "computer")
        return {**self.settings.model_dump(), "prompt_wording": source, "endpoint": str(self.client.base_url)}

    def close(self) -> None:
        self.client.close()


class ChatSession(ProtocolSession):
    """One task."""

    def __init__(self, policy: ChatPolicy, task: TaskSpec, *, seed: int) -> None:
        super().__init__(task, seed=seed, settings=policy.settings, sampling=policy.sampling, platform=policy.platform)
        self.policy = policy

    def _draw(self, messages: list[Message], sampling: SamplingConfig, seed: int) -> Draw:
        sized = [_sized(message, self.settings) for message in messages]
        request: dict[str, Any] = {
            "model": self.policy.model,
            "messages": [_openai_message(message) for message in sized],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "frequency_penalty": sampling.frequency_penalty,
            "seed": seed % 2**31,
        }
        text, tokens = self._request(request)
        return Draw(text, tokens, None, sized[-1]["content"][0]["image"].size)

    def _ask(self, request: dict[str, Any]) -> tuple[str, int]:
        """The reply and its length in tokens (0 where the endpoint does not say)."""
        try:
            answer = self.policy.client.chat.completions.create(**request)
        except ValueError as error:  # the client lets a JSONDecodeError through
            raise _Malformed from error
        try:  # the client does not validate what it parsed
            text, usage = answer.choices[0].message.content, answer.usage
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise _Malformed from error
        if not isinstance(text, str | None):
            raise _Malformed
        return text or "", getattr(usage, "completion_tokens", None) or 0

    def _request(self, request: dict[str, Any]) -> tuple[str, int]:
        chat = self.policy.chat
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(chat.tries),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=chat.max_wait_s),
            retry=tenacity.retry_if_exception(_is_transient),
            reraise=True,
        )
        try:
            return retrying(self._ask, request)
        except (openai.APIError, _Malformed) as error:
            where = f"{self.policy.name} at {self.policy.client.base_url}"
            if _is_transient(error):
                raise InfrastructureError(
                    f"{where} failed {chat.tries} times: {error}", "Is the endpoint up?", component="endpoint"
                ) from error
            raise PolicyError(
                f"{where} refuses the request: {error}", "Check the model's name, the key and the options."
            ) from error


class _Malformed(Exception):
    def __init__(self) -> None:
        super().__init__("the reply is no chat completion")


def _is_transient(error: BaseException) -> bool:
    """Worth another try: no connection, timeout, rate limit, a server's own failure, a reply that is none."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, openai.APIError | _Malformed)


def _sized(message: Message, settings: CheckpointSettings) -> Message:
    parts = message["content"]
    return {**message, "content": [{**p, "image": _resize(p["image"], settings)} if p["type"] == "image" else p for p in parts]}


def _resize(image: Image.Image, settings: CheckpointSettings) -> Image.Image:
    from qwen_vl_utils import smart_resize

    height, width = smart_resize(image.height, image.width, FACTOR, settings.min_pixels, settings.max_pixels)
    return image.resize((width, height))


def _openai_message(message: Message) -> dict[str, Any]:
    if message["content"][0]["type"] == "text":
        return {"role": message["role"], "content": message["content"][0]["text"]}
    return {
        "role": message["role"],
        "content": [{"type": "image_url", "image_url": {"url": _data_url(message["content"][0]["image"])}}],
    }


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
