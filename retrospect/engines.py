"""Who writes the words: rules, the policy's own backbone, or any OpenAI-compatible endpoint.

An engine has one method, ``generate``; :mod:`retrospect.textgrad` hands it to TextGrad as an ``EngineLM``.  An engine is made per
reflection and is not shared between threads; what is worth sharing (connections, what an endpoint cannot do) is in Endpoint.
"""

from __future__ import annotations

import base64
import functools
import io
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import httpx
import tenacity

from envs.answers import after_thought
from envs.base import Screenshot
from envs.bounded import endpoint_client, within
from envs.errors import AdaptationError, InfrastructureError, SetupError, UsageError
from envs.redaction import remember, remember_address
from envs.replies import FAULTS_OF_PARSING, MOST_BYTES, clean_text, count_of
from retrospect.config import OPENAI, WordsConfig

if TYPE_CHECKING:
    import openai

Role = Literal["loss", "gradient", "update", "memory", "judge"]
"""What a request is for: TextGrad's three calls, a Reflexion memory, a judge's scores."""

COMPONENT = "critic"
MAX_BACKOFF_S, MAX_RETRY_AFTER_S = 8.0, 60.0
MAX_IMAGE_SIDE = 1024
"""Screenshots are scaled down to this many pixels before they are sent: enough to read a desktop, and bounded in tokens."""

_REFUSES_IMAGES = frozenset({400, 404, 413, 415, 422, 501})
_MISCONFIGURED = frozenset({401, 403, 404})


@dataclass
class Usage:
    """What a reflection has consumed so far; ``cost`` in USD."""

    requests: int = 0
    tokens: int = 0
    cost: float = 0.0


class WordsEngine(Protocol):
    """Text in, text out."""

    usage: Usage

    def generate(self, prompt: str, system: str, role: Role) -> str:
        """The reply, never empty.

        Raises:
            InfrastructureError: the endpoint failed after all retries, or the reflection's deadline has passed.
            AdaptationError: the reply was unusable after all retries.
            SetupError: the endpoint refuses the key or does not know the model.
        """


class SelfEngine:
    """The policy's own backbone, given by the caller as a function from text to text (its adapter switched off)."""

    def __init__(self, complete: Callable[[str], str]) -> None:
        self.usage = Usage()
        self._complete = complete

    def generate(self, prompt: str, system: str, role: Role) -> str:
        self.usage.requests += 1
        return _content(self._complete(f"{system}\n\n{prompt}"))


class Endpoint:
    """One model behind one OpenAI-compatible address; shared by all sessions and threads.

    Raises:
        SetupError: no key in the environment although the address is not a local one of the user's own.
    """

    def __init__(self, config: WordsConfig, key: str | None, base_url: str | None) -> None:
        import openai  # 1 s: only when an endpoint is really used

        if not key and base_url is None:
            raise SetupError(
                f"The engine {config.engine} needs a key, and {config.api_key_env} is not set.",
                f"export {config.api_key_env}=…, or name an endpoint of your own with base_url.",
            )
        self.model = config.engine.removeprefix(OPENAI)
        self.takes_images = config.images == "auto" and config.max_images > 0
        self.refused: set[str] = set()  # request parameters that this model does not take
        # Retries are counted and bounded here, not in the client.
        remember(key)
        remember_address(base_url)
        try:
            self.client = openai.OpenAI(api_key=key or "none", base_url=base_url, max_retries=0, http_client=endpoint_client())
        except (ValueError, httpx.InvalidURL) as error:
            raise UsageError(
                f"{base_url!r} is not the address of an endpoint: {error}.", "For example http://localhost:8000/v1"
            ) from error


@functools.lru_cache(maxsize=32)
def endpoint(config: WordsConfig, key: str | None, base_url: str | None) -> Endpoint:
    """The shared endpoint of a configuration; what the environment says is part of its identity, so that a change is noticed."""
    return Endpoint(config, key, base_url)


class OpenAIEngine:
    """Chat completions with images where they are taken, bounded retries, a deadline, and a count of tokens and cost."""

    def __init__(self, config: WordsConfig, screenshots: Sequence[Screenshot] = ()) -> None:
        self.usage = Usage()
        self._config = config
        base_url = config.base_url or os.environ.get("OPENAI_BASE_URL") or None
        self._endpoint = endpoint(config, os.environ.get(config.api_key_env), base_url)
        self._screenshots = screenshots
        self._deadline = time.monotonic() + config.deadline_s

    def generate(self, prompt: str, system: str, role: Role) -> str:
        with_images = role in {"loss", "judge", "memory"} and self._endpoint.takes_images and len(self._screenshots) > 0
        if not with_images:
            return self._with_retries(prompt, system, with_images=False)
        try:
            return self._with_retries(prompt, system, with_images=True)
        except _ImagesRefused:
            text = self._with_retries(prompt, system, with_images=False)
            self._endpoint.takes_images = False  # the same request went through without them
            return text

    def _with_retries(self, prompt: str, system: str, *, with_images: bool) -> str:
        config = self._config
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Retryable),
            stop=self._stop,
            wait=self._pause,
            reraise=True,
        )
        try:
            return retrying(self._request, self._messages(prompt, system, with_images), with_images)
        except _Retryable as error:
            tries = retrying.statistics["attempt_number"]
            message = f"The critic at {config.engine} failed {tries} time{'s' * (tries > 1)}: {error}."
            hint = "The attempt goes on without new guidance; see words.max_retries and words.timeout_s."
            if error.malformed:
                raise AdaptationError(message, hint) from error
            raise InfrastructureError(message, hint, component=COMPONENT) from error

    def _messages(self, prompt: str, system: str, with_images: bool) -> list[dict[str, Any]]:
        content: Any = prompt
        if with_images:
            images = ({"type": "image_url", "image_url": {"url": _data_url(screen)}} for screen in self._screenshots)
            content = [*images, {"type": "text", "text": prompt}]
        return [{"role": "system", "content": system}, {"role": "user", "content": content}]

    def _request(self, messages: Any, with_images: bool) -> str:
        import openai

        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise _Retryable(f"the deadline of {self._config.deadline_s:g} s has passed")
        self.usage.requests += 1
        seconds = min(self._config.timeout_s, remaining)
        try:
            with within(seconds, MOST_BYTES):
                reply = self._endpoint.client.chat.completions.create(
                    model=self._endpoint.model, messages=messages, timeout=seconds, **self._parameters()
                )
        except openai.APIStatusError as error:
            raise self._translate(error, with_images) from error
        except openai.APITimeoutError as error:
            raise _Retryable("no answer in time") from error
        except openai.APIConnectionError as error:
            raise _Retryable("no connection") from error
        except (openai.APIError, *FAULTS_OF_PARSING) as error:  # the client lets a JSONDecodeError through
            raise _Retryable(f"the reply is not what the API promises ({type(error).__name__})", malformed=True) from error
        return self._read(reply)

    def _parameters(self) -> dict[str, Any]:
        """Reasoning models take only the newer name of the length limit, and no temperature; they say so when asked."""
        refused = self._endpoint.refused
        length = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
        temperature = {} if "temperature" in refused else {"temperature": self._config.temperature}
        return {length: self._config.max_tokens, **temperature}

    def _read(self, reply: openai.types.chat.ChatCompletion) -> str:
        try:
            usage = getattr(reply, "usage", None)
            given, written = count_of(usage, "prompt_tokens"), count_of(usage, "completion_tokens")
            self.usage.tokens += given + written
            config = self._config
            self.usage.cost += (given * config.usd_per_million_input + written * config.usd_per_million_output) / 1e6
            return _content(clean_text(reply.choices[0].message.content))
        except FAULTS_OF_PARSING as error:  # the client does not validate what it parsed
            raise _Retryable("the reply has no message", malformed=True) from error
        except AdaptationError as error:
            raise _Retryable("the reply is empty", malformed=True) from error

    def _translate(self, error: openai.APIStatusError, with_images: bool) -> Exception:
        status = error.status_code
        if status == 400 and error.param in {"max_tokens", "temperature"} and error.param not in self._endpoint.refused:
            self._endpoint.refused.add(error.param)
            return _Retryable(f"the model does not take {error.param}")
        if with_images and (status in _REFUSES_IMAGES or (status == 500 and "image" in str(error).lower())):
            return _ImagesRefused()
        if status in {408, 409, 429} or status >= 500:
            return _Retryable(f"HTTP {status}", pause=_retry_after(error))
        if status in _MISCONFIGURED:
            hint = f"Check {self._config.api_key_env}, base_url and the model's name."
            return SetupError(f"The endpoint refused {self._config.engine} with HTTP {status}.", hint)
        return InfrastructureError(f"The endpoint refused a request with HTTP {status}.", component=COMPONENT)

    def _pause(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        wanted = error.pause if isinstance(error, _Retryable) else 0.0
        backoff = min(MAX_BACKOFF_S, self._config.backoff_s * 2 ** (state.attempt_number - 1))
        return max(wanted, backoff)

    def _stop(self, state: tenacity.RetryCallState) -> bool:
        too_late = time.monotonic() + self._pause(state) >= self._deadline
        return too_late or state.attempt_number > self._config.max_retries


def make_engine(
    config: WordsConfig, *, self_engine: Callable[[str], str] | None, screenshots: Sequence[Screenshot] = ()
) -> WordsEngine | None:
    """The engine of a configuration for one reflection; None for ``rules``, which needs none."""
    if config.engine == "rules":
        return None
    if config.engine == "self":
        if self_engine is None:
            raise UsageError("The engine self needs a policy that can write text.", "Use engine rules or openai:<model>.")
        return SelfEngine(self_engine)
    return OpenAIEngine(config, screenshots)


class _Retryable(Exception):
    def __init__(self, reason: str, *, pause: float = 0.0, malformed: bool = False) -> None:
        super().__init__(reason)
        self.pause, self.malformed = pause, malformed


class _ImagesRefused(Exception):
    pass


def _content(text: str | None) -> str:
    """What a model said, without its thinking (a template may have begun it, so that only its end is there).

    Raises:
        AdaptationError: nothing is left.
    """
    said = (after_thought(text or "") or "").partition("<think>")[0].strip()
    if not said:
        raise AdaptationError("The critic wrote nothing.")
    return said


def _retry_after(error: openai.APIStatusError) -> float:
    try:
        return min(MAX_RETRY_AFTER_S, max(0.0, float(error.response.headers.get("retry-after", 0))))
    except ValueError:  # an HTTP date; our own backoff is used instead
        return 0.0


def _data_url(screen: Screenshot) -> str:
    from PIL import Image

    image = Image.fromarray(screen)
    image.thumbnail((MAX_IMAGE_SIDE, MAX_IMAGE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
