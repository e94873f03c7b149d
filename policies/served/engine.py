"""The engine's interface before a server: prompts are written here, replies are generated there, adapters go there by name.

An adapter is an immutable value with a name of its own on the server (``session@version``), so that a reply is never generated under
another one: not after a swap, not after a rollback, not after the server was restarted and has got it again.

T tokens of a reply · d hidden size · V vocabulary
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.errors import AdaptationError, InfrastructureError, PolicyError
from policies.adaptation import OURS
from policies.adapters.base import HeadAdapter
from policies.base import NO_PASSES, Passes
from policies.generation import Generation, Prompt, Request, Score, Search
from policies.head import NOT_PLAIN
from policies.learner import HeadLearner
from policies.methods import WeightsConfig
from policies.prompts import TextPrompts, Tokens, VisionPrompts, stop_ids_of
from policies.served import updates, wire
from policies.served.client import COMPONENT, Client, MissingImages, Unknown
from policies.served.learner import ServedLearner

MENDS = 4
"""Times that a request is sent again with what the server turned out to lack."""


class ServedEngine(Tokens):
    """One server, shared by all sessions.

    Args:
        client: The connection.
        info: What the server says of its model.
    """

    def __init__(self, client: Client, info: dict[str, Any]) -> None:
        self.client, self.info = client, info
        self.shape = (int(info["vocabulary"]), int(info["hidden_size"]))
        self._names: weakref.WeakKeyDictionary[HeadAdapter, str] = weakref.WeakKeyDictionary()
        self._naming = threading.RLock()
        self._sent: set[str] = set()  # pictures that the server was seen to have
        self._weight: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where H and adapters are on this side."""
        return torch.device("cpu")

    def enter(self, session: Hashable) -> None:
        """Nothing: the server batches what comes."""

    def leave(self, session: Hashable) -> None:
        """Nothing, as above."""

    # -- the head ----------------------------------------------------------------------------------------------------------------
    @property
    def head_weight(self) -> Tensor:
        """W [V, d], downloaded at the first use."""
        with self._naming:
            if self._weight is None:
                _, tensors = self.client.tensors("GET", "/head")
                self._weight = tensors["weight"]
            return self._weight

    def learner(self, config: WeightsConfig, seed: int) -> HeadLearner:
        """The head adapter of a new session; its updates are computed on the server where they can be.

        Raises:
            PolicyError: the model's logits are not W h alone.
        """
        if not self.info.get("plain", True):  # servers of before do not say
            raise PolicyError(*NOT_PLAIN)
        if self.client.options.update == "here" or config.method not in OURS:
            return HeadLearner(config, self.head_weight, seed)
        return ServedLearner(config, self, seed)

    # -- adapters ----------------------------------------------------------------------------------------------------------------
    def open(self) -> str:
        """A new session on the server."""
        return str(self.client.json("POST", "/sessions")["session"])

    def close_session(self, session: str) -> None:
        """Drop a session's adapters.  A server that is not there has none."""
        with contextlib.suppress(InfrastructureError, PolicyError, Unknown):
            self.client.json("DELETE", f"/sessions/{session}", tries=1)

    def name_of(self, adapter: HeadAdapter) -> str:
        """What the server knows ``adapter`` as; it is sent there if it is not known yet.

        Raises:
            InfrastructureError, PolicyError: it cannot be sent.
        """
        with self._naming:
            name = self._names.get(adapter)
            if name is None:
                session = self.open()
                fields, tensors = updates.theta_of(adapter).packed()
                name = str(self.client.put(f"/sessions/{session}/adapter", wire.pack(fields, tensors))["adapter"])
                self.named(adapter, name)
                weakref.finalize(adapter, self.close_session, session)
            return name

    def named(self, adapter: HeadAdapter, name: str) -> None:
        """The server has ``adapter`` under this name."""
        with self._naming:
            self._names[adapter] = name

    def _forget(self, adapter: HeadAdapter | None) -> None:
        with self._naming:
            if adapter is not None:
                self._names.pop(adapter, None)

    def mended(self, adapter: HeadAdapter | None, ask: Callable[[str | None], Any]) -> Any:
        """What ``ask(name of adapter)`` gives; the adapter is sent again where the server has lost it.

        Raises:
            InfrastructureError: the server loses it again and again.
        """
        for _ in range(MENDS):
            try:
                return ask(None if adapter is None else self.name_of(adapter))
            except Unknown as lost:
                if lost.code == "unknown_session":  # that of an update: its learner opens another
                    raise
                self._forget(adapter)
        raise self._lost("keeps losing an adapter.")

    def _lost(self, what: str) -> InfrastructureError:
        return InfrastructureError(f"The server {self.client.url} {what}", component=COMPONENT)

    # -- replies -----------------------------------------------------------------------------------------------------------------
    @property
    def has_trees(self) -> bool:
        """A server draws whole replies; what was tried is drawn again."""
        return False

    def submit(self, request: Request | Search) -> Generation:
        """The reply to ``request``.  Whoever asks at the same time is batched by the server.

        Raises:
            InfrastructureError: the server is gone, or loses the request again and again: the attempt is void.
            PolicyError: it cannot answer.
        """
        if isinstance(request, Search):
            raise PolicyError(
                "The most probable reply that was not tried cannot be asked of a server.",
                "Use sampling.next_best=false, or a policy that runs in this process.",
            )
        sampling = request.sampling
        fields = {
            "sampling": {name: getattr(sampling, name) for name in ("max_new_tokens", *wire.DRAWING)},
            "seed": request.seed,
            "capture": request.capture,
        }
        tensors = {"stop": torch.tensor(sorted(self.stop_ids))}

        def ask(name: str | None) -> wire.Unpacked:
            return self._asked("/generate", request.prompt, fields | {"adapter": name}, tensors)

        said, found = self.mended(request.adapter, ask)
        tokens, hidden = found.get("tokens"), found.get("hidden")
        if (
            tokens is None
            or "logprobs" not in found
            or not len(tokens)
            or (request.capture and (hidden is None or len(hidden) != len(tokens)))
        ):
            raise self._lost("lost a part of a reply.")
        return Generation(
            text=self._decode(tokens.tolist(), skip_special_tokens=True),
            tokens=tokens,
            hidden=hidden if request.capture else None,
            logprobs=found["logprobs"].float(),
            finish=str(said.get("finish", "stop")),
            prompt_tokens=int(said.get("prompt_tokens", 0)),
            passes=Passes(len(tokens), 1),
        )

    def score(self, prompt: Prompt, tokens: Tensor, adapter: HeadAdapter | None = None) -> Score:
        """H and log-probabilities of the reply ``tokens`` [T] to ``prompt``.

        Raises:
            InfrastructureError: the server is gone.
            AdaptationError: it cannot be scored.
        """
        try:
            _, found = self.mended(
                adapter, lambda name: self._asked("/score", prompt, {"adapter": name}, {"reply": tokens.cpu().to(torch.long)})
            )
        except PolicyError as error:
            raise AdaptationError(error.message, error.hint) from error
        if len(found.get("hidden", ())) != len(tokens):
            raise self._lost("lost a part of H.")
        return Score(found["hidden"], found["logprobs"].float())

    def _asked(self, path: str, prompt: Prompt, fields: dict[str, Any], tensors: dict[str, Tensor]) -> wire.Unpacked:
        """A request about a prompt; its pictures travel once."""
        pixels = [torch.from_numpy(np.array(image.convert("RGB"))) for image in prompt.images]  # [height, width, 3] each
        order = [wire.digest_of(picture) for picture in pixels]
        pictures = dict(zip(order, pixels, strict=True))
        tensors = {"ids": torch.tensor(self._ids_of(prompt.text), dtype=torch.long), **tensors}
        send = {digest for digest in pictures if digest not in self._sent}
        for _ in range(MENDS):
            body = wire.pack({**fields, "images": order}, {**tensors, **{f"image.{digest}": pictures[digest] for digest in send}})
            try:
                answer = self.client.tensors("POST", path, body)
            except MissingImages as missing:
                send |= set(missing.digests) & set(pictures)
                continue
            self._sent |= set(pictures)
            return answer
        raise self._lost("keeps losing pictures.")

    def update(self, fields: dict[str, Any], tensors: dict[str, Tensor], adapter: HeadAdapter | None) -> wire.Unpacked:
        """A weight update of what acts with ``adapter``, see :mod:`policies.served.updates`; what is in ``fields`` names the session.

        Raises:
            AdaptationError: it could not be computed.
            InfrastructureError: the server is gone.
        """
        answer: wire.Unpacked = self.mended(
            adapter, lambda name: self.client.tensors("POST", "/update", wire.pack({**fields, "adapter": name}, tensors))
        )
        return answer

    def close(self) -> None:
        """Let the connection go."""
        self.client.close()


class ServedVision(ServedEngine, VisionPrompts):
    """A server of a model that sees."""

    def __init__(self, client: Client, info: dict[str, Any], processor: Any, generation: Any) -> None:
        super().__init__(client, info)
        self._share_processor(processor)
        self._share_tokenizer(processor.tokenizer, stop_ids_of(generation, processor.tokenizer), self.shape[0])


class ServedText(ServedEngine, TextPrompts):
    """A server of a model that reads text only."""

    def read(self, prompt: Prompt) -> Passes:
        """Nothing: the server keeps prefixes by itself, and is asked once the new weights are there."""
        return NO_PASSES

    def __init__(self, client: Client, info: dict[str, Any], tokenizer: Any, generation: Any) -> None:
        super().__init__(client, info)
        self._share_tokenizer(tokenizer, stop_ids_of(generation, tokenizer), self.shape[0])
