"""Replies of chat models in parts: a thought, and the answer after it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from policies.generation import Generation
from policies.prompts import ChatMessage
from policies.thoughts import END_OF_THOUGHT


def turn(role: str, text: str) -> ChatMessage:
    return {"role": role, "content": text}


def joined(first: Generation, rest: Generation) -> Generation:
    """One reply of two parts, the second written after the first."""
    return dataclasses.replace(
        rest,
        text=first.text + rest.text,
        tokens=torch.cat([first.tokens, rest.tokens]),
        hidden=None if first.hidden is None or rest.hidden is None else torch.cat([first.hidden, rest.hidden]),
        logprobs=torch.cat([first.logprobs, rest.logprobs]),
        prompt_tokens=first.prompt_tokens,
        given=first.given,
        passes=first.passes + rest.passes,
    )


def ended(thought: Generation, tokens: Tensor, hidden: Tensor | None) -> Generation:
    """A thought with the ``tokens`` [n] after it that end it: nobody drew them, so their log p counts as 0.

    ``hidden``: what the head received there, [n, d]; None where nothing is captured.
    """
    n = len(thought.tokens)
    return dataclasses.replace(
        thought,
        text=thought.text + END_OF_THOUGHT,
        tokens=torch.cat([thought.tokens, tokens]),
        hidden=None if thought.hidden is None or hidden is None else torch.cat([thought.hidden, hidden.to(thought.hidden)]),
        logprobs=torch.cat([thought.logprobs, torch.zeros(len(tokens))]),
        given=(n, n + len(tokens)),
    )


def beginning(reply: Generation, n: int, text: str) -> Generation:
    """The first ``n`` tokens of a reply, which say ``text``; at the price of all of it."""
    hidden = None if reply.hidden is None else reply.hidden[:n]
    a, b = reply.given
    return dataclasses.replace(
        reply, text=text, tokens=reply.tokens[:n], hidden=hidden, logprobs=reply.logprobs[:n], given=(min(a, n), min(b, n))
    )


def says_something(text: str) -> bool:
    return bool(text.strip())


def thought_tokens(pieces: Sequence[str]) -> int:
    """How many tokens the thought takes, its end included; 0 if it has not ended."""
    text = "".join(pieces)
    end = text.rfind("</think>")
    if end < 0:
        return 0
    ends = itertools.accumulate(map(len, pieces))
    return next(n for n, at in enumerate(ends, start=1) if at >= end + len("</think>"))
