"""The bundled policy's tokenizer: Qwen2's special tokens, whole words for the wording of instructions, characters for the rest.

A model of this size has to *read* names on the screen and *copy* them out of the instruction.  Both are learned letter by letter or
not at all: sub-words would give the same name different tokens after a blank and after a quote, and each piece its own look.  So
words that belong to a task's wording ("click", "button", "red") are one token, everything else is one token per character.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

BOILERPLATE = (
    "user\n", "assistant\n", "Thought: ", "\nAction: click(start_box='(", "\nAction: drag(start_box='(",
    "\nAction: hover(start_box='(", "\nAction: left_double(start_box='(", "\nAction: scroll(start_box='(",
    "\nAction: type(content='",
    "\nAction: hotkey(key='", "\nAction: wait()", "\nAction: finished()", ": click(start_box='(", ": hover(start_box='(",
    ": left_double(start_box='(", ": scroll(start_box='(", ": drag(start_box='(", ": type(content='", ": hotkey(key='",
    ": wait()", ")', end_box='(", ")', direction='", ")')", "')", "\n```\nFailed before:\n- ", "\n- ", "; ",
    "\nDo otherwise.\n```", " (nothing changed)",
)  # fmt: skip
"""Pieces of the format of replies and guidance, one token each: a reply is then little more than its thought and its digits."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.content is string -%}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- else -%}<|im_start|>{{ message.role }}\n{{ part.text }}<|im_end|>{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{% endif -%}"
)
"""ChatML without separators; an image stands alone, since on a small CPU model every token of a prompt is paid for."""

_WORD = re.compile(r"[^\W\d_]+")
_QUOTED = re.compile(r'"[^"]*"|\'[^\']*\'')


def common_words(corpus: Mapping[str, Iterable[str]], share: float = 0.06, limit: int = 500) -> list[str]:
    """Words that belong to the wording: outside quotes, in at least ``share`` of the lines of some task; most widespread first."""
    widest: Counter[str] = Counter()
    for lines in corpus.values():
        total, found = 0, Counter[str]()
        for line in lines:
            total += 1
            found.update(set(_WORD.findall(_QUOTED.sub(" ", line))))
        for word, count in found.items():
            if len(word) > 1 and count >= share * total:
                widest[word] = max(widest[word], round(1000 * count / total))
    return sorted(word for word, _ in sorted(widest.items(), key=lambda item: (-item[1], item[0]))[:limit])


def build_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerBase:
    """A tokenizer whose words are ``words`` (each with and without a leading blank) and whose other tokens are single bytes."""
    words = sorted(set(words))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(f"{blank}{word}" for word in words for blank in ("", "Ġ"))]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    raw.normalizer = normalizers.NFC()
    listed = "|".join(sorted(map(re.escape, words), key=len, reverse=True)) or "(?!)"
    whole = rf"(?: |(?<!\p{{L}}))(?:{listed})(?!\p{{L}})"
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(rf"{whole}|[\s\S]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    raw.add_tokens([AddedToken(text, normalized=False, special=False) for text in BOILERPLATE])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL),
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
    )
