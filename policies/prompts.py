"""From a conversation to a prompt and from text to tokens and back: what needs a tokenizer or a processor, and no weights."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor

from envs.errors import AdaptationError, PolicyError
from policies.families.messages import Message
from policies.generation import Prompt

ChatMessage = dict[str, str]
"""``role`` and ``content``, as chat templates take them."""

SAMPLE = "This is a reply."
"""A text that a chat template is tried with."""


class Tokens:
    """A tokenizer that several threads use.

    Attributes:
        stop_ids: Tokens that end a reply.
        vocabulary: V, the number of rows of the head.
    """

    tokenizer: Any
    stop_ids: frozenset[int]
    vocabulary: int

    def _share_tokenizer(self, tokenizer: Any, stop_ids: frozenset[int], vocabulary: int) -> None:
        tokenizer.padding_side = "left"
        self.tokenizer, self.stop_ids, self.vocabulary = tokenizer, stop_ids, vocabulary
        self._tokenizer_lock = threading.Lock()  # fast tokenizers refuse concurrent use ("Already borrowed")

    def tokens(self, text: str) -> Tensor:
        """A reply's tokens [T] as the tokenizer writes its text, the end of the turn included."""
        return torch.tensor([*self._ids_of(text), self._end_of_turn])

    @functools.cached_property
    def _end_of_turn(self) -> int:
        """What the chat template writes after a reply, of the tokens that end one: not always the tokenizer's own (Gemma, Phi-3)."""
        usual: int = min(self.stop_ids) if self.tokenizer.eos_token_id is None else self.tokenizer.eos_token_id
        if not self.tokenizer.chat_template:
            return usual
        try:
            with self._tokenizer_lock:
                turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": SAMPLE}]
                whole: str = self.tokenizer.apply_chat_template(turns, tokenize=False)
        except (TemplateError, TypeError, ValueError):  # a template that takes no such conversation says nothing of its end
            return usual
        _, found, after = whole.rpartition(SAMPLE)
        return next((i for i in self._ids_of(after) if i in self.stop_ids), usual) if found else usual

    def _ids_of(self, text: str) -> list[int]:
        with self._tokenizer_lock:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def known(self, ids: Sequence[int]) -> Tensor:
        """Recorded token ids of a reply as y [T].

        Raises:
            AdaptationError: they are not of this model.
        """
        if not all(0 <= i < self.vocabulary for i in ids):
            raise AdaptationError(f"The recorded tokens are not of this model's vocabulary of {self.vocabulary}.")
        return torch.tensor(list(ids))

    def pieces(self, tokens: Tensor) -> list[str]:
        """The text of every single token of a reply, special tokens included."""
        return [self._decode([token]) for token in tokens.tolist()]

    def said(self, tokens: Tensor) -> str:
        """The text of tokens, special tokens included: of all together, as a character may take several."""
        return self._decode(tokens.tolist())

    def _decode(self, tokens: list[int], *, skip_special_tokens: bool = False) -> str:
        with self._tokenizer_lock:
            text: str = self.tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)
        return text


class VisionPrompts(Tokens):
    """Prompts of vision-language models of Qwen's line.

    Attributes:
        factor: Sides of a picture are multiples of this.
    """

    processor: Any
    patch_size: int
    factor: int

    def _share_processor(self, processor: Any) -> None:
        self.processor = processor
        self.patch_size = processor.image_processor.patch_size
        self.factor = self.patch_size * processor.image_processor.merge_size

    def prompt(self, messages: Sequence[Message], min_pixels: int, max_pixels: int, **template: Any) -> Prompt:
        """Chat template and images of a conversation, each image resized by ``smart_resize`` to the pixel budget.

        Args:
            template: Variables of the chat template, e.g. ``enable_thinking``.

        Raises:
            PolicyError: the text holds the model's own image token.
        """
        from qwen_vl_utils import process_vision_info

        sized = [_with_budget(message, min_pixels, max_pixels) for message in messages]
        images, _ = process_vision_info(sized, image_patch_size=self.patch_size)
        text = self.processor.apply_chat_template(sized, tokenize=False, add_generation_prompt=True, **template)
        if text.count(self.processor.image_token) != len(images or ()):
            raise PolicyError(f"The instruction contains the model's control token {self.processor.image_token}.")
        return Prompt(text, tuple(images or ()))


class TextPrompts(Tokens):
    """Prompts of chat models that read text only."""

    @property
    def thinks(self) -> bool:
        """Whether the chat template knows of thoughts (Qwen3, the distillations of R1)."""
        return "<think>" in str(self.tokenizer.chat_template or "")

    @property
    def thought_switch(self) -> bool:
        """Whether it can switch them off (Qwen3)."""
        return "enable_thinking" in str(self.tokenizer.chat_template or "")

    def chat(self, messages: Sequence[ChatMessage], **template: Any) -> Prompt:
        """A conversation as the model's own chat template writes it, up to where its reply begins.

        Args:
            messages: In order; the last one is the user's.
            template: Variables of the template, e.g. ``enable_thinking`` of Qwen3.

        Raises:
            PolicyError: the template does not take this conversation.
        """
        try:
            with self._tokenizer_lock:
                text: str = self.tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=True, **template
                )
        except Exception as error:  # whatever a stranger's template raises
            raise PolicyError(f"The model's chat template failed: {error}.", "Does the tokenizer have one?") from error
        return Prompt(text, ())


def stop_ids_of(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a reply: the generation configuration's, and the tokenizer's."""
    configured = generation_config.eos_token_id
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    return frozenset(i for i in ids if i is not None)


def _with_budget(message: Message, min_pixels: int, max_pixels: int) -> Message:
    content = [
        {**part, "min_pixels": min_pixels, "max_pixels": max_pixels} if part["type"] == "image" else part
        for part in message["content"]
    ]
    return {**message, "content": content}
