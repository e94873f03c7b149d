"""Heads of our own in a worker: each request's adapter on the logits, its tokens drawn as the in-process engine draws them, H kept.

Nothing here knows vLLM: :mod:`policies.served.plugin.worker` tells it which rows a step computes, and takes the logits back.

A worker may compute a position twice (a preempted request is read again) and may compute rows that are thrown away (chunks of a prompt,
a row that was scheduled before the end was known): everything is kept by request *and position*, and what a position drew first stands.
An exception inside a step would end the engine for everybody: a request that cannot be served is ended, and says why when it is fetched.

T tokens of a reply · d hidden size · V vocabulary · b rows of a step
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from policies.adapters.base import HeadAdapter
from policies.head import add_deltas, row_groups
from policies.sampler import Sampler
from policies.sampling import SamplingConfig

FORGET_S = 600.0
"""What a finished request left is dropped after this time, if nobody fetched it."""
SCORE_ROWS = 128


@dataclass(frozen=True)
class Plan:
    """How a request is to be served, as its ``extra_args`` say.

    Attributes:
        key: Its name among all that are in flight, over all clients.
        adapter: Name of the adapter that it wears; None for the frozen head.
        sampling: How its tokens are drawn.
        seed: Of its random stream.
        stop: A token that ends it.
        capture: Keep H.
        score_from: The prompt ends with a reply of so many tokens, negative: score it; None generates.
    """

    key: str
    adapter: str | None = None
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    seed: int = 0
    stop: int = 0
    capture: bool = False
    score_from: int | None = None

    @classmethod
    def of(cls, given: dict[str, Any]) -> Plan:
        """From the ``extra_args`` that :meth:`as_args` made."""
        return cls(**{**given, "sampling": SamplingConfig(**given["sampling"])})

    def as_args(self) -> dict[str, Any]:
        return {**vars(self), "sampling": vars(self.sampling)}


class Written:
    """What a request wrote so far."""

    def __init__(self, plan: Plan, prompt: Sequence[int], adapter: HeadAdapter | None, error: str = "") -> None:
        """``prompt``: its token ids."""
        self.plan, self.prompt, self.adapter, self.error = plan, len(prompt), adapter, error
        ids = torch.tensor(prompt) if plan.sampling.repetition_penalty != 1 else None
        self.sampler = Sampler([plan.sampling], [plan.seed], [ids])
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.hidden: dict[int, Tensor] = {}
        self.ended = 0.0

    @property
    def plain(self) -> bool:
        """Whether its token is simply the most probable one."""
        drawn = self.plan.sampling
        return drawn.temperature == 0 and not drawn.frequency_penalty and drawn.repetition_penalty == 1


class Heads:
    """All adapters and all replies of one worker.

    Args:
        weight: W [V, d] of the frozen head.
        compute: The model's own logits of H: [n, d] -> [n, V].
    """

    def __init__(self, weight: Tensor, compute: Callable[[Tensor], Tensor]) -> None:
        self.weight, self.compute = weight, compute
        self.adapters: dict[str, HeadAdapter] = {}
        self._live: dict[str, Written] = {}  # by the engine's own id of the request
        self._kept: dict[str, Written] = {}  # by key, until it is fetched
        self.counts = {"steps": 0, "rows": 0, "again": 0, "thrown_away": 0}

    # -- adapters ----------------------------------------------------------------------------------------------------------------
    def put(self, name: str, adapter: HeadAdapter) -> int:
        """Keep an adapter under a name that is never given twice; its bytes."""
        self.adapters[name] = adapter.to(self.weight.device, torch.float32)
        return self.adapters[name].nbytes

    def drop(self, name: str) -> bool:
        """Forget an adapter; replies that wear it go on wearing it."""
        return self.adapters.pop(name, None) is not None

    # -- requests ----------------------------------------------------------------------------------------------------------------
    def begin(self, new: Iterable[tuple[str, Sequence[int], dict[str, Any]]], finished: Iterable[str]) -> None:
        """What a step brings: (id, token ids of the prompt, ``extra_args``) of requests that are new, ids of those that have ended."""
        now = time.monotonic()
        for request, prompt, given in new:
            if request in self._live:
                continue  # preempted, and sent as new again
            plan = Plan.of(given)
            if plan.score_from is not None:
                plan = replace(plan, score_from=len(prompt) + plan.score_from)
            adapter = self.adapters.get(plan.adapter) if plan.adapter else None
            unknown = plan.adapter is not None and adapter is None
            reply = Written(plan, prompt, adapter, f"unknown adapter {plan.adapter}" if unknown else "")
            self._live[request] = self._kept[plan.key] = reply
        for request in finished:
            ended = self._live.pop(request, None)
            if ended is not None:
                ended.ended = now
        for key in [key for key, reply in self._kept.items() if reply.ended and now - reply.ended > FORGET_S]:
            del self._kept[key]

    @property
    def scoring(self) -> bool:
        """Whether a reply is being scored, so that :meth:`passed` has to be told of every position."""
        return any(reply.plan.score_from is not None for reply in self._live.values())

    def passed(self, hidden: Tensor, spans: Sequence[tuple[str, int, int]]) -> None:
        """Every position of a step, ``hidden`` [n, d], and of each request in order (id, first position, positions)."""
        start = 0
        for request, first, count in spans:
            reply = self._live.get(request)
            if reply is not None and reply.plan.score_from is not None:
                low = max(first, reply.plan.score_from - 1)  # position i predicts token i + 1
                high = min(first + count, reply.prompt - 1)
                if low < high:
                    rows = hidden[start + low - first : start + high - first].detach().clone()
                    at = low - (reply.plan.score_from - 1)
                    reply.hidden.update({at + i: row for i, row in enumerate(rows)})
            start += count

    def logits(self, logits: Tensor, hidden: Tensor, rows: Sequence[tuple[str, int]]) -> Tensor:
        """The logits [b, V] of a step as its requests are to see them: everything but the drawn token impossible.

        Args:
            logits: The frozen head's.
            hidden: What the head received, [b, d].
            rows: Of each row (id of the request, positions of it that are computed with this step).
        """
        self.counts["steps"] += 1
        mine: list[tuple[int, Written, int]] = []  # (row, reply, which of its tokens)
        for row, (request, upto) in enumerate(rows):
            reply = self._live.get(request)
            if reply is None or reply.plan.score_from is not None:
                continue
            if upto < reply.prompt:
                self.counts["thrown_away"] += 1  # a chunk of its prompt
                continue
            mine.append((row, reply, upto - reply.prompt))
        if not mine:
            return logits
        index = torch.tensor([row for row, *_ in mine], device=logits.device)
        h = hidden.index_select(0, index)  # [k, d]
        z = logits.index_select(0, index).float()  # [k, V]
        groups = row_groups([reply.adapter for _, reply, _ in mine])
        if groups:
            z = add_deltas(self.weight, h, z, groups)
        drawn = self._draw(z, h, [(reply, at) for _, reply, at in mine])
        out = logits.clone()
        out[index] = -torch.inf
        out[index, torch.tensor(drawn, device=out.device)] = 0.0
        return out

    def _draw(self, z: Tensor, h: Tensor, replies: Sequence[tuple[Written, int]]) -> list[int]:
        """The token of each row, drawn or as it was drawn before."""
        best = z.argmax(-1).tolist()
        total = z.logsumexp(-1)  # [k]
        bad = torch.isnan(total).tolist()
        copies = h.detach().clone()
        drawn = []
        for row, (reply, at) in enumerate(replies):
            if at < len(reply.tokens):
                self.counts["again"] += 1
                token = reply.tokens[at]
            elif reply.error:
                token = reply.plan.stop
            elif bad[row]:
                reply.error, token = "the logits are not numbers (NaN)", reply.plan.stop
            else:
                token = best[row] if reply.plain else int(reply.sampler.draw(z[row][None])[0])
                reply.tokens.append(token)
                reply.logprobs.append(float(z[row, token] - total[row]))
                self.counts["rows"] += 1
                if reply.plan.capture:
                    reply.hidden[at] = copies[row]
            drawn.append(token)
        return drawn

    def pop(self, key: str, length: int) -> tuple[str, dict[str, Tensor]]:
        """What a request left, once: (what went wrong or "", its tensors), of its first ``length`` tokens.

        Raises:
            KeyError: there is nothing under this key.
        """
        reply = self._kept.pop(key)
        if reply.error:
            return reply.error, {}
        if reply.plan.score_from is not None:
            return self._scored(reply)
        tensors = {"tokens": torch.tensor(reply.tokens[:length]), "logprobs": torch.tensor(reply.logprobs[:length])}
        if reply.plan.capture:
            if any(at not in reply.hidden for at in range(length)):
                return "H is incomplete", {}
            tensors["hidden"] = torch.stack([reply.hidden[at] for at in range(length)])
        return ("" if len(reply.tokens) >= length else "tokens are missing"), tensors

    def _scored(self, reply: Written) -> tuple[str, dict[str, Tensor]]:
        assert reply.plan.score_from is not None
        T = reply.prompt - reply.plan.score_from
        if any(at not in reply.hidden for at in range(T)):
            return "H is incomplete", {}
        return "", {"hidden": torch.stack([reply.hidden[at] for at in range(T)])}

    def logprobs(self, hidden: Tensor, tokens: Tensor, adapter: HeadAdapter | None) -> Tensor:
        """log π(y_i) [T] of ``tokens`` [T] where the head receives ``hidden`` [T, d]."""
        found = []
        for h, y in zip(hidden.split(SCORE_ROWS), tokens.to(hidden.device).split(SCORE_ROWS), strict=True):
            z = self.compute(h).float()
            if adapter is not None:
                z = add_deltas(self.weight, h, z, [(adapter, list(range(len(h))))])
            found.append(z.gather(1, y[:, None])[:, 0] - z.logsumexp(-1))
        return torch.cat(found)

    def forget(self, key: str) -> None:
        """Drop what a request left, or will leave."""
        self._kept.pop(key, None)
