"""The names of all settings: what there is, what a short name means, and what is nearest to a mistyped one."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from agentlab.run.config import RunConfig
from envs.errors import UsageError
from envs.option_types import wrong_type
from envs.suites import benchmark_names
from policies.adaptation import config_classes
from policies.methods import WeightsConfig


def complete_key(key: str) -> str:
    """The full dotted name of a setting; unknown names are returned as they are (and refused later, with suggestions)."""
    if key == "adapt":
        return "adapt.preset"
    benchmark, dot, option = key.partition(".")
    if dot and benchmark in benchmark_names():  # `osworld.scroll` is `env.scroll`: a run has one benchmark
        return f"env.{option}"
    known = list(known_keys(RunConfig))
    if key in known or any(k.startswith(f"{key}.") or (k.endswith(".*") and key.startswith(k[:-1])) for k in known):
        return key
    head, _, tail = key.rpartition(".")
    fits = [k for k in known if k.endswith(f".{key}")] or [k for k in known if k.endswith(f".{tail}") and k.startswith(head)]
    fits = [k for k in fits if k.count(".") == min(f.count(".") for f in fits)]  # the outermost section is meant
    fits = [k for k in fits if not k.startswith("experience.")] or fits  # `beta` is that of the run's own updates
    if len(fits) > 1:
        raise UsageError(f"Setting {key!r} is ambiguous.", f"Say which: {', '.join(fits)}.")
    return fits[0] if fits else key


def known_keys(model: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings; ``name.*`` where any key is taken."""
    for name, kind in _fields(model).items():
        sections = sections_of(kind)
        if sections:
            yield from dict.fromkeys(key for section in sections for key in known_keys(section, f"{prefix}{name}."))
        elif typing.get_origin(kind) is dict:
            yield f"{prefix}{name}.*"
        else:
            yield f"{prefix}{name}"


def check_keys(settings: Mapping[str, Any], models: Sequence[Any] = (RunConfig,), prefix: str = "", *, types: bool = False) -> None:
    """Refuse keys that none of ``models`` knows, naming the nearest known ones; with ``types`` also values that would be converted."""
    fields = {name: kind for model in models for name, kind in _fields(model).items()}
    for key, value in settings.items():
        if key not in fields:
            raise UsageError(f"Unknown setting {prefix + str(key)!r}.", nearest(str(key), fields))
        sections = sections_of(fields[key])
        if sections and not isinstance(value, Mapping):
            raise UsageError(f"{prefix}{key} is a group of settings, not {value!r}.", _inside(f"{prefix}{key}", sections[0]))
        if sections:
            check_keys(value, sections, f"{prefix}{key}.", types=types)
        elif typing.get_origin(fields[key]) is dict and not isinstance(value, Mapping):
            raise UsageError(f"{prefix}{key} holds options by name, not {value!r}.", f"For example --set {prefix}{key}.NAME=VALUE.")
        elif types:
            wrong = [wrong_type(value, _fields(model)[key]) for model in models if key in _fields(model)]
            if all(wrong):
                raise UsageError(
                    f"{prefix}{key} is {str(value)[:60]!r}, not {wrong[0]}.", f"`agentlab settings {prefix}{key}` says more."
                )


def _inside(section: str, model: Any) -> str:
    """How to say what is in a section."""
    named = {"adapt": "Name an adaptation (--adapt rosa2), or", "sampling": "Name one (--set sampling=official), or"}
    return f"{named.get(section, 'Name')} its settings: {', '.join(f'{section}.{name}' for name in list(_fields(model))[:4])} …"


def is_default(key: str, value: Any) -> bool:
    """Whether ``value`` is the default of the setting with the dotted name ``key`` (of any method that has it)."""
    models: tuple[Any, ...] = (RunConfig,)
    *sections, last = key.split(".")
    for section in sections:
        models = next(sections_of(_fields(model)[section]) for model in models if section in _fields(model))
    return any(last in model.model_fields and bool(model.model_fields[last].default == value) for model in models)


@functools.cache
def _fields(model: Any) -> Mapping[str, Any]:
    """Field names and types of a pydantic model or a dataclass; finding out the types takes most of a resolution's time."""
    if dataclasses.is_dataclass(model):
        hints = typing.get_type_hints(model)
        return {f.name: hints[f.name] for f in dataclasses.fields(model)}
    return {name: info.annotation for name, info in model.model_fields.items()}


def sections_of(kind: Any) -> tuple[Any, ...]:
    """The section types inside ``kind`` (unwrapping ``X | None``): of the weights one per method, else one or none."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union else (kind,)
    found = tuple(o for o in options if dataclasses.is_dataclass(o) or (isinstance(o, type) and issubclass(o, BaseModel)))
    return config_classes() if found == (WeightsConfig,) else found[:1]


def nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else f"Known: {', '.join(known)}."
