"""Failed attempts for the policy to read about: its own mistakes, put into the guidance that it will get after a failure.

The policy of the first phase is asked, greedily and at temperature 1, on screens that it was not trained on.  Where its reply
misses, an attempt is composed of the expert's steps before, the wrong step, and perhaps the steps after; one to three such attempts
are rendered by :func:`retrospect.guidance.render_tried`, and the policy learns to give the expert's reply anyway.  So it learns
two things: "not that one: the next best", and that the early steps of a failed attempt may have been right.  On screens it was
trained on neither would be learned: there its first choice is right, and the guidance says nothing that it did not know.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from agentlab.pretrain.examples import examples
from agentlab.pretrain.shards import Episode, Screen
from envs import actions as act
from envs.errors import InvalidActionError
from policies.families.reply import Frame, Reply
from policies.families.ui_tars.parse import parse_reply
from policies.nano.data import Example, prompt_ids
from policies.nano.decode import replies
from policies.nano.fast import FastForward
from policies.nano.replies import action_text, reply_text
from policies.nano.screen import SCREEN_HEIGHT, SCREEN_WIDTH
from retrospect.guidance import Tried, render_tried

FRAME = Frame(SCREEN_WIDTH, SCREEN_HEIGHT)
ATTEMPTS = (1, 2, 3)
ATTEMPT_SHARES = (0.5, 0.3, 0.2)
NEAR = 10.0
"""Pixels within which the end of a drag still is the expert's."""


def parsed(reply: str) -> Reply | None:
    """The reply as the environment will take it; None if it is not an action."""
    try:
        return parse_reply(reply, FRAME)
    except InvalidActionError:
        return None


def is_right(action: act.Action, screen: Screen) -> bool:
    """Whether ``action`` does what the expert's does: the same kind, and the same target, text or keys."""
    expert = screen.action
    if isinstance(action, act.Drag) and isinstance(expert, act.Drag):
        near = math.hypot(action.end_x - expert.end_x, action.end_y - expert.end_y) <= NEAR
        return near and _hits(action.x, action.y, screen)
    if isinstance(action, act.POINTED) and type(action) is type(expert):
        return _hits(action.x, action.y, screen)
    return action == expert


def _hits(x: float, y: float, screen: Screen) -> bool:
    expert = screen.action
    assert isinstance(expert, act.POINTED)
    box = screen.box or {"x": expert.x - NEAR / 2, "y": expert.y - NEAR / 2, "w": NEAR, "h": NEAR}
    return box["x"] <= x < box["x"] + box["w"] and box["y"] <= y < box["y"] + box["h"]


def sample_mistakes(
    network: FastForward,
    tokenizer: PreTrainedTokenizerBase,
    episodes: Sequence[Episode],
    *,
    temperatures: Sequence[float] = (0.0, 1.0),
    seed: int,
    on_progress: Callable[[int], None] = lambda n: None,
) -> dict[tuple[str, int, int], list[str]]:
    """Wrong replies of the policy, asked once at each temperature: (task, seed, step) -> the different ones, if any."""
    generator = torch.Generator().manual_seed(seed)
    wrong: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    for start in range(0, len(episodes), 32):
        block = [screen for episode in episodes[start : start + 32] for screen in episode]
        histories = [example.history for episode in episodes[start : start + 32] for example in examples(episode)]
        asked = [
            (prompt_ids(tokenizer, screen.instruction, "", history), screen.pixels())
            for screen, history in zip(block, histories, strict=True)
        ]
        said = [
            (screen, reply)
            for temperature in temperatures
            for screen, reply in zip(
                block,
                replies(network, tokenizer, asked, temperature=temperature, generator=generator, max_new_tokens=64),
                strict=True,
            )
        ]
        for screen, reply in said:
            found = wrong[screen.task, screen.seed, screen.index]
            answer = parsed(reply)
            if answer is not None and reply not in found and not is_right(answer.actions[0], screen):
                found.append(reply)
        on_progress(len(episodes[start : start + 32]))
    return {key: found for key, found in wrong.items() if found}


def guided(episode: Episode, wrong: Mapping[tuple[str, int, int], Sequence[str]], rng: np.random.Generator) -> list[Example]:
    """Examples of ``episode`` under guidance about failed attempts; none if the policy made no mistake on it.

    The step where the newest failed attempt went wrong is always among them, one other step may be.
    """
    slips = [(screen.index, reply) for screen in episode for reply in wrong.get((screen.task, screen.seed, screen.index), ())]
    if not slips:
        return []
    count = min(int(rng.choice(ATTEMPTS, p=ATTEMPT_SHARES)), len(slips))
    chosen = [slips[i] for i in rng.permutation(len(slips))[:count]]
    guidance = render_tried([_attempt(episode, index, reply, rng) for index, reply in chosen])
    whole = examples(episode, guidance)
    wanted = {index for index, _ in chosen}
    if rng.random() < 0.5:
        wanted.add(int(rng.integers(len(episode))))
    return [whole[index] for index in sorted(wanted)]


def retried(episode: Episode, wrong: Mapping[tuple[str, int, int], Sequence[str]], rng: np.random.Generator) -> list[Example]:
    """Examples in which the policy has just missed, once or more, and the screen is as before: look again instead of repeating."""
    found = []
    for example, screen in zip(examples(episode), episode, strict=True):
        slips = wrong.get((screen.task, screen.seed, screen.index), ())
        if slips:
            misses = [slips[i] for i in rng.integers(len(slips), size=int(rng.integers(1, 3)))]
            found.append(dataclasses.replace(example, history=[*example.history, *misses], _encoded=None))
    return found


def _attempt(episode: Episode, index: int, reply: str, rng: np.random.Generator) -> list[Tried]:
    before = [_tried(reply_text(s.thought, s.action)) for s in episode[:index]]
    after = [_tried(reply_text(s.thought, s.action)) for s in episode[index + 1 :]]
    step = _tried(reply, changed=bool(rng.random() < 0.6))
    return [*before, step, *(after if rng.random() < 0.5 else [])]


def _tried(reply: str, changed: bool = True) -> Tried:
    answer = parsed(reply)
    assert answer is not None
    return Tried(answer.thought, answer.action_text, changed)


def describe(screen: Screen) -> str:
    """The expert's action in words, for logs."""
    return f"{screen.thought}: {action_text(screen.action)}"
