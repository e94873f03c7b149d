"""A recorded attempt as plain data of known types, for the viewer and the exports: texts, finite numbers, actions of the vocabulary.

Whatever stood in the files: a run directory may come from somebody else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from agentlab.disk.files import finite
from agentlab.disk.runs import Attempt, screen_path
from envs import actions as act
from envs.errors import InvalidActionError, StoreError

Data = dict[str, Any]


def attempt_data(attempt: Attempt) -> Data:
    """One attempt, step by step; what is missing or of another kind is None, "" or left out."""
    reflection = (attempt.words or {}).get("reflection")
    reflection = reflection if isinstance(reflection, dict) else {}
    credit = reflection.get("credit")
    row = attempt.result
    moved = shifts((attempt.tokens or {}).get("replies"))
    return {
        "number": attempt.number,
        "instruction": text(attempt.begin.get("instruction")),
        "guidance": text(attempt.begin.get("guidance")),
        "guidance_after": attempt.guidance_after,
        "steps": [_step(attempt, step, i, credit) | {"shift": moved.get(i)} for i, step in enumerate(attempt.steps)],
        "final": _seen(attempt, attempt.end),
        "ended": bool(attempt.end),
        "finished": row is not None,
        "outcome": row.outcome if row else "",
        "ended_by": row.ended_by if row else text(attempt.end.get("ended_by")),
        "reward": row.reward if row else None,
        "success": row.success if row else None,
        "judge": {k: plain(v) for k, v in row.judge.model_dump().items()} if row and row.judge else {},
        "score": row.score if row else None,
        "seconds": row.seconds.parts() if row else {},
        "update": {text(k): plain(v) for k, v in (attempt.update or {}).items()} | _adapter(attempt),
        "critique": text(reflection.get("critique")),
        "gradient": text(reflection.get("gradient")),
        "words_error": text(reflection.get("error")),
        "distance": number(reflection.get("distance")),
        "voids": attempt.voids,
        "problems": attempt.problems,
    }


def _adapter(attempt: Attempt) -> Data:
    """Whether the adapter of an update is still there: runs keep what ``keep_adapters`` says."""
    if attempt.result is None or not attempt.result.adapter:
        return {}
    return {"adapter": "kept" if attempt.adapter else "not kept (keep_adapters)"}


def _step(attempt: Attempt, step: Data, place: int, credit: Any) -> Data:
    seconds = step.get("seconds")
    return {
        "index": number(step.get("index")) or place + 1,
        **_seen(attempt, step),
        "thought": text(step.get("thought")),
        "action_text": text(step.get("action_text")) or text(step.get("text")),
        "text": text(step.get("text")),
        "actions": _actions(step.get("actions")),
        "invalid": text(step.get("invalid")),
        "feedback": text(step.get("feedback")),
        "tokens": number(step.get("tokens")),
        "redrawn": number(step.get("redrawn")) or 0,
        "logprob": number(step.get("logprob")),
        "token_ids": token_ids(step),
        "token_logprobs": numbers(step.get("token_logprobs")),
        "credit": number(credit[place]) if isinstance(credit, list) and place < len(credit) else None,
        "seconds": {text(k): number(v) for k, v in seconds.items()} if isinstance(seconds, dict) else {},
    }


def _actions(recorded: Any) -> list[Data]:
    found = []
    for data in recorded if isinstance(recorded, list) else []:
        try:
            found.append(act.to_json(act.from_json(data if isinstance(data, dict) else {})))
        except InvalidActionError as error:
            found.append(act.to_json(act.Invalid(error.message)))
    return [{k: v if not isinstance(v, float) or math.isfinite(v) else 0.0 for k, v in a.items()} for a in found]


def _seen(attempt: Attempt, event: Data) -> Data:
    """What there was to see: ``screen``, a file's name or None if it cannot be shown; ``observation``, a text or None; and whether
    there was a picture (``pictured``), so that a missing screen can be told from none.
    """
    observation = event.get("observation")
    observation = observation if isinstance(observation, str) else None
    pictured = "screen" in event or observation is None
    return {"screen": _screen(attempt, event.get("screen")), "observation": observation, "pictured": pictured}


def _screen(attempt: Attempt, name: Any) -> str | None:
    """``000.webp``, or None if it cannot be shown."""
    try:
        return screen_path(attempt.folder, name).name
    except StoreError:
        return None


def text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def number(value: Any) -> float | None:
    known = finite(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    return known if isinstance(known, int | float) else None


def token_ids(step: Data) -> list[int]:
    """The ids of a recorded reply's tokens; empty where the run has none, or something else in their place."""
    ids = step.get("token_ids")
    fits = isinstance(ids, list) and all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids)
    return list(ids) if fits and ids else []


def numbers(value: Any) -> list[float]:
    """A list of finite numbers, or nothing."""
    found: Sequence[float | None] = [number(v) for v in value] if isinstance(value, list) else []
    return [v for v in found if v is not None] if all(v is not None for v in found) else []


def shifts(replies: Any) -> dict[int, Data]:
    """What an update did to the tokens of each reply, by the step's place from 0: ``pieces``, and log π ``before`` and ``after``."""
    found = {}
    for reply in replies if isinstance(replies, list) else []:
        if not isinstance(reply, dict) or not isinstance(reply.get("step"), int):
            continue
        pieces = [text(p) for p in reply["pieces"]] if isinstance(reply.get("pieces"), list) else []
        before, after = numbers(reply.get("before")), numbers(reply.get("after"))
        if pieces and len(pieces) == len(before) == len(after):
            found[reply["step"]] = {"pieces": pieces, "before": before, "after": after}
    return found


def plain(value: Any) -> Any:
    """A finite number, a switch, or text."""
    return value if isinstance(value, bool) or value is None else found if (found := number(value)) is not None else text(value)
