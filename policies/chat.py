"""A model behind an OpenAI-compatible endpoint, asked as its family is asked: no weights to adapt, but words work."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from typing import Any

import httpx
import openai
import tenacity
from openai import OpenAI
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from envs.base import TaskSpec
from envs.bounded import endpoint_client, within
from envs.errors import InfrastructureError, PolicyError, SetupError, UsageError
from envs.redaction import redact, remember, remember_address
from envs.replies import FAULTS_OF_PARSING, MOST_BYTES, clean_text, count_of, why
from policies.base import Passes, Policy
from policies.checkpoint import settings_of
from policies.families.base import Family
from policies.families.messages import Message, Platform, images
from policies.families.registry import choose
from policies.families.session import Draw, ProtocolSession, description
from policies.families.settings import CHOICES, FamilySettings, checked_platform, seen_size
from policies.sampling import SamplingConfig


class ChatOptions(BaseModel):
    """How the endpoint is reached.

    Attributes:
        base_url: Of the endpoint; default ``OPENAI_BASE_URL``, or OpenAI itself.
        api_key_env: Environment variable that holds the key.  (The key itself is not an option: a run writes its options down.)
        timeout_s: Of one request: until the whole answer is there.
        tries: Requests per reply before the attempt is void.
        max_wait_s: Longest pause between two of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = Field(default=120.0, gt=0, le=604_800)
    tries: int = Field(default=4, ge=1, le=1000)
    max_wait_s: float = Field(default=20.0, ge=0, le=604_800)


def load_chat_policy(model: str, sampling: SamplingConfig, options: Mapping[str, Any]) -> ChatPolicy:
    """The policy ``openai:<model>``.

    Raises:
        UsageError: no model name, or an unknown option.
        SetupError: no key for the endpoint.
    """
    if not model:
        raise UsageError("openai: needs the name of a model.", "For example openai:ui-tars-1.5-7b with OPENAI_BASE_URL set.")
    platform = checked_platform(options)
    family = choose(model, asked=options.get("family"))
    own = {k: v for k, v in options.items() if k in ChatOptions.model_fields}
    try:
        chat = ChatOptions.model_validate(own)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"Bad policy option: {details}.", f"Options: {', '.join(ChatOptions.model_fields)}.") from error
    settings = settings_of(family, None, {k: v for k, v in options.items() if k not in (*own, *CHOICES)}, ChatOptions.model_fields)
    return ChatPolicy(model, chat, family, settings, sampling, platform)


class ChatPolicy(Policy):
    """A model somewhere else; sessions share the client, which is safe to use from several threads."""

    adaptable = False

    def __init__(
        self,
        model: str,
        chat: ChatOptions,
        family: Family,
        settings: FamilySettings,
        sampling: SamplingConfig,
        platform: Platform | None = None,
    ) -> None:
        self.name = f"openai:{model}"
        self.model, self.chat, self.family, self.settings, self.sampling = model, chat, family, settings, sampling
        self.platform = platform
        base_url = chat.base_url or os.environ.get("OPENAI_BASE_URL")
        key = os.environ.get(chat.api_key_env)
        if not key and not base_url:
            raise SetupError(
                "No key for the OpenAI endpoint.", f"Set {chat.api_key_env}, or OPENAI_BASE_URL for an endpoint of your own."
            )
        # Local servers want no key, but the client does.
        remember(key)
        remember_address(base_url)
        try:
            self.client = OpenAI(
                api_key=key or "none", base_url=base_url, timeout=chat.timeout_s, max_retries=0, http_client=endpoint_client()
            )
        except (ValueError, httpx.InvalidURL) as error:
            raise UsageError(
                f"{base_url!r} is not the address of an endpoint: {error}.", "For example http://localhost:8000/v1"
            ) from error

    def open(self, task: TaskSpec, *, seed: int, adapt: Any = None) -> ChatSession:
        if adapt is not None and getattr(adapt, "method", "") != "none":
            raise UsageError(
                f"The weights of {self.name} are out of reach, they cannot be adapted.",
                "Use --adapt none, textgrad or reflexion, or a policy that runs in this process.",
            )
        return ChatSession(self, task, seed=seed)

    def describe(self) -> dict[str, Any]:
        return {**description(self.family, self.settings, self.platform), "endpoint": redact(str(self.client.base_url))}

    def close(self) -> None:
        self.client.close()


class ChatSession(ProtocolSession):
    """One task."""

    def __init__(self, policy: ChatPolicy, task: TaskSpec, *, seed: int) -> None:
        super().__init__(
            task,
            seed=seed,
            family=policy.family,
            settings=policy.settings,
            sampling=policy.sampling,
            factor=policy.family.factor,
            platform=policy.platform,
        )
        self.policy = policy

    def _draw(self, messages: list[Message], sampling: SamplingConfig, seed: int) -> Draw:
        sized = [self._sized(message) for message in messages]
        request: dict[str, Any] = {
            "model": self.policy.model,
            "messages": [_openai_message(message) for message in sized],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "frequency_penalty": sampling.frequency_penalty,
            "seed": seed % 2**31,
        }
        # Not OpenAI's own: vLLM and SGLang know them.
        extra: dict[str, Any] = {"chat_template_kwargs": dict(self.family.template)} if self.family.template else {}
        if sampling.repetition_penalty != 1:
            extra["repetition_penalty"] = sampling.repetition_penalty
        if extra:
            request["extra_body"] = extra
        text, tokens, cut = self._request(request)
        return Draw(text, tokens, None, images(sized)[-1].size, passes=Passes(max(tokens, 1), 1), cut=cut)

    def _sized(self, message: Message) -> Message:
        """Every picture at the size that the model sees, so that pixel coordinates refer to what it was sent."""
        parts = [{**p, "image": self._resized(p["image"])} if p["type"] == "image" else p for p in message["content"]]
        return {**message, "content": parts}

    def _resized(self, image: Image.Image) -> Image.Image:
        return image.resize(seen_size(image.size, self.settings, self.factor))

    def _ask(self, request: dict[str, Any]) -> tuple[str, int, bool]:
        """The reply, its length in tokens (0 where the endpoint does not say), and whether it ran out of them."""
        try:
            with within(self.policy.chat.timeout_s, MOST_BYTES):
                answer = self.policy.client.chat.completions.create(**request)
            # The client does not validate what it parsed.
            choice = answer.choices[0]
            text, tokens = clean_text(choice.message.content), count_of(answer.usage, "completion_tokens")
            return text, tokens, getattr(choice, "finish_reason", None) == "length"
        except openai.APIError:
            raise
        except FAULTS_OF_PARSING as error:
            raise _Malformed from error

    def _request(self, request: dict[str, Any]) -> tuple[str, int, bool]:
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
                    f"{where} failed {chat.tries} times: {why(error)}", "Is the endpoint up?", component="endpoint"
                ) from error
            raise PolicyError(
                f"{where} refuses the request: {why(error)}", "Check the model's name, the key and the options."
            ) from error


class _Malformed(Exception):
    def __init__(self) -> None:
        super().__init__("the reply is not a chat completion")


def _is_transient(error: BaseException) -> bool:
    """Worth another try: no connection, timeout, rate limit, a server's own failure, a reply that is not a completion."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, openai.APIError | _Malformed)


def _openai_message(message: Message) -> dict[str, Any]:
    """In OpenAI's form: a message of one text is that text, every other a list of parts."""
    parts = message["content"]
    if len(parts) == 1 and parts[0]["type"] == "text":
        return {"role": message["role"], "content": parts[0]["text"]}
    content = [p if p["type"] == "text" else {"type": "image_url", "image_url": {"url": _data_url(p["image"])}} for p in parts]
    return {"role": message["role"], "content": content}


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
