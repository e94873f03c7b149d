"""Models that think first: whether a thought goes on, what ends one, and what they say after it."""

from __future__ import annotations

from envs.answers import after_thought
from policies.backbone import Backbone
from policies.families.reply import is_thinking
from policies.generation import Prompt, Request
from policies.sampling import SamplingConfig

END_OF_THOUGHT = "\n</think>\n\n"
"""What ends a thought that has run out of its budget; the answer comes next."""

TAIL = 40
"""Characters at the end of a prompt in which its template may begin a thought."""


def thinks_on(prompt: Prompt, reply: str) -> bool:
    """Whether a reply, or the prompt before it, has begun a thought that has not ended."""
    return is_thinking(prompt.text[-TAIL:] + reply)


def written(engine: Backbone, prompt: Prompt, max_new_tokens: int) -> str:
    """What the frozen model writes, greedily, without its thought; one that takes all the tokens is ended, and the rest asked for."""
    sampling = SamplingConfig(max_new_tokens=max_new_tokens)
    reply = engine.submit(Request(prompt, sampling, seed=0)).text
    if thinks_on(prompt, reply):
        reply += END_OF_THOUGHT
        reply += engine.submit(Request(Prompt(prompt.text + reply, prompt.images), sampling, seed=0)).text
    return "" if thinks_on(prompt, reply) else (after_thought(reply) or "").strip()
