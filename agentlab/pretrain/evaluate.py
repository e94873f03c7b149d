"""Held-out success in the real environment: the first attempt, and the second one after a failure, with and without guidance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase

from agentlab.pretrain.mistakes import parsed
from envs import actions as act
from envs.base import Screenshot, TaskSpec, picture
from envs.miniwob import tasks
from envs.miniwob.env import MiniWoBEnv
from policies.nano.data import prompt_ids
from policies.nano.decode import replies
from policies.nano.fast import FastForward
from retrospect.evidence import gather
from retrospect.guidance import Tried, render_tried
from retrospect.trace import Step, Trace


@dataclass
class Trial:
    """One attempt at one instance: its words, its score, and what a critic by rule would remember of it."""

    task: str
    seed: int
    guidance: str = ""
    score: float = 0.0
    unparsable: int = 0
    steps: list[Step] = field(default_factory=list)
    tried: tuple[Tried, ...] = ()


class Player:
    """Plays instances in lockstep over ``pages`` pages, one batch of replies per step.  Use as a context manager."""

    def __init__(self, network: FastForward, tokenizer: PreTrainedTokenizerBase, pages: int = 8) -> None:
        self.network, self.tokenizer = network, tokenizer
        self._envs = [MiniWoBEnv() for _ in range(pages)]
        self._threads = ThreadPoolExecutor(pages)

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        for env in self._envs:
            env.close()

    def play(
        self,
        instances: Sequence[tuple[str, int, str]],
        *,
        temperature: float = 0.0,
        seed: int = 0,
        on_progress: Callable[[int], None] = lambda n: None,
    ) -> list[Trial]:
        """One attempt at each (task, seed, guidance), in order.

        Raises:
            InfrastructureError: the browser failed.
        """
        generator = torch.Generator().manual_seed(seed)
        done = []
        for start in range(0, len(instances), len(self._envs)):
            block = [Trial(*instance) for instance in instances[start : start + len(self._envs)]]
            self._play_block(block, temperature, generator)
            done += block
            on_progress(len(block))
        return done

    def _play_block(self, block: list[Trial], temperature: float, generator: torch.Generator) -> None:
        running = dict(zip(self._envs, block, strict=False))
        specs = [TaskSpec(tasks.ENV_ID, a.task, a.seed, tasks.max_steps(a.task)) for a in block]
        started = self._threads.map(lambda pair: pair[0].reset(options={"task": pair[1]}), zip(running, specs, strict=True))
        seen = {}
        goals = {}
        for env, (observation, info) in zip(running, started, strict=True):
            seen[env], goals[env] = picture(observation), info["instruction"]
        while running:
            asked = [
                (prompt_ids(self.tokenizer, goals[env], a.guidance, [s.text for s in a.steps][-4:]), seen[env])
                for env, a in running.items()
            ]
            said = replies(self.network, self.tokenizer, asked, temperature=temperature, generator=generator)
            moves = {env: self._move(running[env], reply, seen[env]) for env, reply in zip(running, said, strict=True)}
            results = list(self._threads.map(lambda pair: pair[0].step(pair[1]), moves.items()))
            for env, (observation, _, terminated, truncated, info) in zip(list(moves), results, strict=True):
                seen[env] = picture(observation)
                if terminated or truncated:
                    attempt = running.pop(env)
                    attempt.score = float(info["score"])
                    trace = Trace(goals[env], attempt.steps, {"screenshot": seen[env]}, attempt.score, info["ended_by"])
                    attempt.tried = gather(trace).tried()

    @staticmethod
    def _move(attempt: Trial, reply: str, screen: Screenshot) -> act.Action:
        answer = parsed(reply)
        actions = answer.actions if answer else (act.Invalid("unparsable"),)
        attempt.unparsable += answer is None
        attempt.steps.append(
            Step(
                index=len(attempt.steps) + 1, observation={"screenshot": screen}, text=reply, thought=answer.thought if answer else "",
                action_text=answer.action_text if answer else reply, actions=actions,
            )
        )  # fmt: skip
        return actions[0]


def guidance_of(attempts: Iterable[Trial]) -> str:
    """What a critic by rule writes after these failed attempts."""
    return render_tried([attempt.tried for attempt in attempts])


def summary(player: Player, task: str, instances: int) -> dict[str, float | int]:
    """Success on the held-out seeds 0 .. instances - 1, and on the failures among them a second time.

    ``first``: greedy.  Of the failures, solved at attempt 2: ``guided`` greedy under the guidance about attempt 1, ``sampled`` at
    temperature 1 without it (greedy without it repeats itself).
    """
    first = player.play([(task, seed, "") for seed in range(instances)])
    failed = [attempt for attempt in first if attempt.score == 0]
    guided = player.play([(task, attempt.seed, guidance_of([attempt])) for attempt in failed])
    sampled = player.play([(task, attempt.seed, "") for attempt in failed], temperature=1.0, seed=1)
    return {
        "first": (len(first) - len(failed)) / max(len(first), 1),
        "failed": len(failed),
        "guided": sum(attempt.score > 0 for attempt in guided),
        "sampled": sum(attempt.score > 0 for attempt in sampled),
        "repeated": sum(a.tried == b.tried for a, b in zip(failed, guided, strict=True)),
        "unparsable": sum(attempt.unparsable for attempt in first),
    }
