"""Attempts as trajectories in the Agent Trajectory Interchange Format, ATIF v1.8 (Harbor's RFC 0001).

One document per attempt, ``<session>/attempt_01/trajectory.json``, with its screens beside it.  The attempts of a session share a
``session_id``.  Step 1 is what the user asked, with the first screen or text; every reply is an agent's step whose actions are tool
calls and whose observation is the screen or text they led to.
"""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from agentlab.disk.files import disk_errors, write_atomic
from agentlab.disk.runs import Run
from agentlab.disk.store import flatten
from agentlab.exchange.plain import Data, plain
from agentlab.exchange.source import Exported, Lived, copy_screen, sessions
from envs import actions as act
from envs.errors import StoreError

SCHEMA_VERSION = "ATIF-v1.8"
JSON_TYPES = {"float": "number", "int": "integer", "str": "string", "bool": "boolean"}


def write(run: Run, folder: Path, guidance: bool) -> Exported:
    """See :func:`agentlab.exchange.export.export_run`."""
    done = Exported("trajectories")
    for attempts in sessions(run, done):
        for lived in attempts:
            target = folder / lived.place
            document = trajectory(run, lived, target, guidance, done)
            with disk_errors(target):
                target.mkdir(parents=True, exist_ok=True)
            write_atomic(target / "trajectory.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
            done.count += 1
    return done


def trajectory(run: Run, lived: Lived, target: Path, guidance: bool, done: Exported) -> Data:
    """The document of one attempt; screens are copied below ``target``, those that cannot be are named in the text."""
    data = lived.data
    seen = [_parts(lived, what, target, done) for what in lived.seen]
    told = f"{data['instruction']}\n\n{data['guidance']}" if guidance and data["guidance"] else data["instruction"]
    steps: list[Data] = [{"step_id": 1, "source": "user", "message": [{"type": "text", "text": told}, *seen[0]]}]
    steps += [_agent_step(i, step, seen[i]) for i, step in enumerate(data["steps"], start=1)]
    session = f"{run.folder.resolve().name}/{lived.session}"
    tokens = [step["tokens"] for step in data["steps"]]
    return {
        "schema_version": SCHEMA_VERSION,
        "session_id": session,
        "trajectory_id": f"{session}/{lived.folder.name}",
        "agent": {
            "name": "agentlab",
            "version": version("rosa-agentlab"),
            "model_name": str(run.config.get("policy")),
            "tool_definitions": tool_definitions(),
            "extra": {name: plain(value) for name, value in flatten(run.config).items()},
        },
        "steps": steps,
        "final_metrics": {
            "total_completion_tokens": sum(int(n or 0) for n in tokens),
            "total_steps": len(steps),
            "extra": lived.row.model_dump(include={"score", "reward", "success", "ended_by", "steps"}),
        },
        "extra": {
            "task": lived.row.task,
            "domain": lived.row.domain,
            "attempt": lived.number,
            "guidance": data["guidance"],
            "guidance_after": data["guidance_after"],
            "update": data["update"],
        },
    }


def _parts(lived: Lived, seen: Data, target: Path, done: Exported) -> list[Data]:
    """The content parts of what there was to see."""
    parts = [{"type": "text", "text": seen["observation"]}] if seen["observation"] is not None else []
    return [*parts, _screen(lived, seen["screen"], target, done)] if seen["pictured"] else parts


def _screen(lived: Lived, name: str | None, target: Path, done: Exported) -> Data:
    """The content part of a screen."""
    try:
        if name is None:
            raise StoreError("a screen is missing")
        copy_screen(lived.folder, name, target / "images" / name)
    except StoreError as error:
        done.left_out.append(f"{lived.session}/{lived.number}: {error.message}")
        return {"type": "text", "text": f"[{error.message}]"}
    done.images += 1
    return {"type": "image", "source": {"media_type": "image/webp", "path": f"images/{name}"}}


def _agent_step(place: int, step: Data, after: list[Data]) -> Data:
    """Reply ``place`` (from 1) and what it led to."""
    calls = [
        {"tool_call_id": f"call_{place}_{i}", "function_name": action["kind"], "arguments": _arguments(action)}
        for i, action in enumerate(step["actions"], start=1)
        if action["kind"] != act.Invalid.kind
    ]
    refused = [{"type": "text", "text": f"Not executed: {step['invalid']}"}] if step["invalid"] else []
    content = [*refused, *after]
    result: Data = {"content": content}
    if calls:
        result["source_call_id"] = calls[-1]["tool_call_id"]
    made: Data = {"step_id": place + 1, "source": "agent", "message": step["text"], "observation": {"results": [result]}}
    if calls:
        made["tool_calls"] = calls
    if step["thought"]:
        made["reasoning_content"] = step["thought"]
    if step["tokens"]:
        made["metrics"] = _metrics(step)
    seconds = {name: value for name, value in step["seconds"].items() if value is not None}
    said = {"feedback": step["feedback"]} if step["feedback"] else {}
    return made | {"extra": {"credit": step["credit"], "seconds": seconds, **said}}


def _metrics(step: Data) -> Data:
    found: Data = {"completion_tokens": int(step["tokens"])}
    if step["token_ids"]:
        found["completion_token_ids"] = step["token_ids"]
    if step["token_logprobs"]:
        found["logprobs"] = step["token_logprobs"]
    if step["logprob"] is not None:
        found["extra"] = {"logprob": step["logprob"]}
    return found


def _arguments(action: Data) -> Data:
    return {name: value for name, value in action.items() if name != "kind"}


def tool_definitions() -> list[Data]:
    """The vocabulary of actions in OpenAI's function-calling schema; coordinates are pixels of the screenshot."""
    return [_definition(kind) for kind in act.VOCABULARY.values() if kind is not act.Invalid]


def _definition(kind: type[act.Action]) -> Data:
    properties: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.type == "Direction":
            properties[field.name] = {"type": "string", "enum": list(get_args(act.Direction))}
        elif field.name == "keys":
            properties[field.name] = {"type": "array", "items": {"type": "string"}}
        else:
            properties[field.name] = {"type": JSON_TYPES[str(field.type).removesuffix(" | None")]}
    required = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
    summary = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    summary = "" if summary.startswith(f"{kind.__name__}(") else summary  # a dataclass without a docstring has its signature there
    return {
        "type": "function",
        "function": {
            "name": kind.kind,
            "description": summary,
            "parameters": {"type": "object", "properties": properties, "required": required},
        },
    }
