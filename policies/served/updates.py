"""A weight update where the head is: an attempt's H and y go there, numbers and the new adapter come back.

The mathematics is :class:`policies.learner.HeadLearner`, there as here; a server keeps no state of a learner.

T tokens of an attempt · n of its replies' · d hidden size · V vocabulary
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from envs.errors import LabError
from policies.adaptation import OURS, config_of
from policies.adapters import adapter_class
from policies.adapters.base import HeadAdapter
from policies.base import ReplyTokens, Update
from policies.learner import HeadLearner, Past, Piece
from policies.served import wire

UPDATE, RESIDUAL = "update", "residual"


def theta_of(adapter: HeadAdapter) -> wire.Theta:
    """An adapter as it travels.

    Raises:
        WireError: a server does not know its kind.
    """
    kind = next((name for name, tensors in wire.KINDS.items() if set(tensors) == set(adapter.theta)), None)
    if kind is None:
        raise wire.WireError(f"A server does not know the adapter {type(adapter).__name__}.")
    return wire.Theta(kind, dict(adapter.theta), float(getattr(adapter, "scale", 1.0)))


def adapter_of(theta: wire.Theta) -> HeadAdapter:
    """The adapter that travelled."""
    made: Any = adapter_class(theta.kind)
    adapter: HeadAdapter = made(**theta.tensors, **({"scale": theta.scale} if theta.kind == wire.LORA else {}))
    return adapter


def attempt(learner: HeadLearner, rewards: Sequence[float], what: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What ``learner`` captured of an attempt, as a message's fields and tensors."""
    pieces = learner.pieces
    fields = {
        "what": what,
        "config": learner.config.model_dump(mode="json"),
        "seed": learner.seed,
        "rewards": list(rewards),
        "pieces_per_reply": learner.pieces_per_reply,
        "steps": [[piece.step, len(piece.tokens), piece.coordinates is not None, piece.frame is not None] for piece in pieces],
    }
    tensors = {
        "hidden": torch.cat([piece.hidden.cpu() for piece in pieces]) if pieces else torch.zeros(0, learner.weight.shape[1]),
        "tokens": torch.cat([piece.tokens for piece in pieces]) if pieces else torch.zeros(0, dtype=torch.long),
    }
    for name in ("coordinates", "frame"):
        marks = [mark for piece in pieces if (mark := getattr(piece, name)) is not None]
        if marks:
            tensors[name] = torch.cat(marks)
    if learner.past is not None:
        tensors |= {f"past.{name}": value for name, value in learner.past.tensors().items()}
    return fields, tensors


def computed(message: bytes, weight: Tensor, adapter: HeadAdapter | None) -> tuple[bytes, HeadAdapter | None]:
    """The answer to an :func:`attempt`, and the new adapter if there is one.  Everything that is wrong with it is in the answer."""
    try:
        fields, tensors = wire.unpack(message)
        learner = _learner(fields, tensors, weight, adapter)
        rewards = [float(r) for r in fields["rewards"]]
        with torch.inference_mode(False), torch.no_grad():
            if fields.get("what") == RESIDUAL:
                return wire.pack({"error": "", "residual": learner.residual(rewards)}), None
            update = learner.update(rewards)
    except LabError as error:
        return wire.pack({"error": error.message, "hint": error.hint, "kind": type(error).__name__}), None
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        return wire.pack({"error": f"{type(error).__name__}: {error}", "kind": "UsageError"}), None
    said = {"error": "", "update": {**dataclasses.asdict(update)}}
    out: dict[str, Tensor] = {}
    if not update.accepted or learner.adapter is None:
        return wire.pack(said, out), None
    theta, numbers = theta_of(learner.adapter).packed("theta.")
    if learner.past is not None:
        numbers |= {f"past.{name}": value for name, value in learner.past.tensors().items()}
    return wire.pack(said | theta, numbers), learner.adapter


def _learner(fields: Mapping[str, Any], tensors: Mapping[str, Tensor], weight: Tensor, adapter: HeadAdapter | None) -> HeadLearner:
    config = dict(fields["config"])
    if config.get("method") not in OURS:  # others' methods are code, which a message must not choose
        raise ValueError(f"the method {config.get('method')!r} is not one that a server has")
    learner = HeadLearner(config_of(config), weight.detach().clone() if weight.is_inference() else weight, int(fields["seed"]))
    learner.resume(adapter, Past.of(_with_prefix(tensors, "past.")))
    learner.pieces_per_reply = max(1, int(fields.get("pieces_per_reply", 1)))
    at = {"hidden": 0, "coordinates": 0, "frame": 0}
    for step, n, *marked in fields["steps"]:
        marks = {}
        for name, there in zip(("coordinates", "frame"), marked, strict=True):
            marks[name] = tensors[name][at[name] : at[name] + n] if there else None
            at[name] += n if there else 0
        rows = slice(at["hidden"], at["hidden"] + n)
        learner.record(tensors["hidden"][rows], tensors["tokens"][rows], int(step), **marks)
        at["hidden"] += n
    return learner


def updated(
    fields: Mapping[str, Any], tensors: Mapping[str, Tensor], shape: tuple[int, int]
) -> tuple[Update, HeadAdapter | None, Past | None]:
    """What :func:`computed` answered.

    Raises:
        WireError: it is not that.
    """
    try:
        said = dict(fields["update"])
        replies = tuple(
            ReplyTokens(**{**one, **{k: tuple(one[k]) for k in ("before", "after", "pieces")}}) for one in said.pop("replies")
        )
        update = Update(**said, replies=replies)
    except (KeyError, TypeError) as error:
        raise wire.WireError(f"The answer is not an update: {error}.") from error
    mine = _with_prefix(tensors, "theta.")
    adapter = adapter_of(wire.theta_of(fields, mine, shape)) if mine else None
    return update, adapter, Past.of(_with_prefix(tensors, "past."))


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


__all__ = ["RESIDUAL", "UPDATE", "Piece", "adapter_of", "attempt", "computed", "theta_of", "updated"]
