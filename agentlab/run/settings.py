"""Every setting there is, from the fields that define them: ``agentlab settings`` and ``docs/settings.md`` are made of this."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from agentlab.run.config import RunConfig
from agentlab.run.keys import complete_key, sections_of
from agentlab.run.presets import PRESETS
from envs.errors import UsageError, did_you_mean
from envs.registration import own_benchmarks
from policies.registry import ENGINE_OPTIONS, ENGINES

OF_POLICIES = {
    "policies.families.settings": "checkpoints",
    "policies.chat": "openai:MODEL",
    "policies.causal.settings": "text models",
    "policies.served.client": "served:URL, engine=vllm",
}
"""Modules whose models are options of policies, and of which."""
NOT_A_SETTING = {"task", "oracle", "grader", "sandbox", "render_mode", "platform"}
"""Parameters of environments that a run fills in."""


BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
"""How the bounds of a field are written."""


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: Dotted, as ``--set`` takes it.
        of: What has it, where not everything does: methods, an environment, a kind of policy.
        default: As it would be written.
        meaning: In words.
        values: What is allowed, in words.
    """

    name: str
    of: str
    default: str
    meaning: str
    values: str

    @property
    def section(self) -> str:
        """What stands before the last dot; ``run`` if there is no dot."""
        return self.name.rpartition(".")[0] or "run"


def all_settings() -> list[Setting]:
    """Every setting of a run, section by section; a setting that several have alike stands once."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for s in (*_of(RunConfig, "", ""), *_of_policies(), *_of_environments()):
        found.setdefault((s.name, s.default, s.meaning, s.values), []).append(s.of)
    settings = [Setting(name, ", ".join(filter(None, of)), *rest) for (name, *rest), of in found.items()]
    sections = list(dict.fromkeys(s.section for s in settings))
    return sorted(settings, key=lambda s: sections.index(s.section))


def matching(name: str) -> list[Setting]:
    """The settings meant by a name, the end of one (``beta``), or a section (``adapt.words``).

    Raises:
        UsageError: there is no such setting.
    """
    everything = all_settings()
    names = {name, complete_key(name)}
    found = [s for s in everything if s.name in names or s.section in names or any(s.section.startswith(f"{n}.") for n in names)]
    found = found or [s for s in everything if s.name.endswith(f".{name}") or s.section.endswith(f".{name}")]
    if not found:
        known = {s.name for s in everything} | {s.name.rpartition(".")[2] for s in everything}
        raise UsageError(f"There is no setting {name!r}.", did_you_mean(name, known, what="setting"))
    return found


# -- from the fields ---------------------------------------------------------------------------------------------------------------
def _of(model: Any, prefix: str, of: str) -> Iterator[Setting]:
    """The settings of a section: of a pydantic model, or of a dataclass with annotated fields."""
    for name, (kind, info) in _fields(model).items():
        sections = sections_of(kind)
        if len(sections) > 1:  # one per method; the description of their `method` field is given once
            yield from (s for s in _of(kind, f"{prefix}{name}.", of) if s.name.endswith(".method"))
        for section in sections:
            if len(sections) > 1:
                method = str(section.model_fields["method"].default)
                yield from (s for s in _of(section, f"{prefix}{name}.", method) if not s.name.endswith(".method"))
            else:
                yield from _of(section, f"{prefix}{name}.", of)
        if not sections and typing.get_origin(kind) is not dict:
            default = info.default if info.default is not PydanticUndefined else None
            meaning = info.description or _from_docstring(model).get(name, "")
            yield Setting(f"{prefix}{name}", of, _written(default), meaning, _values(kind, info.metadata))


def _fields(model: Any) -> dict[str, tuple[Any, FieldInfo]]:
    if not dataclasses.is_dataclass(model):
        return {name: (info.annotation, info) for name, info in model.model_fields.items()}
    hints = typing.get_type_hints(model, include_extras=True)
    fields = {f.name: FieldInfo.from_annotated_attribute(hints[f.name], f.default) for f in dataclasses.fields(model)}
    return {name: (info.annotation, info) for name, info in fields.items()}


def _of_policies() -> Iterator[Setting]:
    for module, of in OF_POLICIES.items():
        for model in vars(importlib.import_module(module)).values():
            if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == module:
                yield from _of(model, "model.", of)
    from policies.causal.load import ENGINE_OPTIONS as OF_TEXT
    from policies.causal.load import load_engine as load_text
    from policies.checkpoint import load_engine

    yield from _of_callable(load_engine, "model.", "checkpoints", lambda option: option in ENGINE_OPTIONS)
    yield from _of_callable(load_text, "model.", "text models", lambda option: option in OF_TEXT)
    meaning = (
        "What runs the model: transformers (this process), or vllm (a server that is started for the run, see docs/serving.md)."
    )
    yield Setting("model.engine", "checkpoints, text models", ENGINES[0], meaning, ", ".join(ENGINES))
    meaning = (
        "Whose prompts, parser and coordinates it is used with (`agentlab families`); null: what the checkpoint or its name says."
    )
    yield Setting("model.family", "checkpoints, openai:MODEL", "null", meaning, "a family or null")
    meaning = "Vocabulary of actions that is asked for; null: that of the run's environment."
    yield Setting("model.platform", "checkpoints, openai:MODEL", "null", meaning, "computer, mobile or null")


def _of_environments() -> Iterator[Setting]:
    for benchmark in own_benchmarks().values():
        module, _, name = str(benchmark.environment).partition(":")
        creator = getattr(importlib.import_module(module), name)
        yield from _of_callable(creator, "env.", benchmark.name, lambda option: option not in NOT_A_SETTING)


def _of_callable(creator: Callable[..., Any], prefix: str, of: str, wanted: Callable[[str], bool]) -> Iterator[Setting]:
    """Options that are parameters, with what the docstring says of them."""
    meanings, choices = _from_docstring(creator), getattr(creator, "choices", {})
    for option, parameter in inspect.signature(creator).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:  # what else it takes stands in an attribute of that name
            for name, knob in getattr(creator, option, {}).items():
                words = ", ".join(knob.choices) or _values(type(knob.default), [])
                yield Setting(f"{prefix}{name}", of, _written(knob.default), knob.text, words)
        elif wanted(option):
            words = ", ".join(choices[option]) if option in choices else _values(_annotation(creator, option), [])
            yield Setting(f"{prefix}{option}", of, _written(parameter.default), meanings.get(option, ""), words)


def _annotation(creator: Callable[..., Any], option: str) -> Any:
    kind = inspect.signature(creator, eval_str=False).parameters[option].annotation
    simple = {"bool": bool, "int": int, "float": float, "str": str, "int | None": int | None, "str | None": str | None}
    return simple.get(kind, kind) if isinstance(kind, str) else kind


def _from_docstring(thing: Any) -> dict[str, str]:
    """What a Google-style docstring says of the arguments or attributes, by name."""
    found: dict[str, str] = {}
    for section in re.split(r"\n(?=\w+:\n)", inspect.getdoc(thing) or ""):
        if section.startswith(("Args:", "Attributes:")):
            for entry in re.split(r"\n {4}(?! )", section)[1:]:
                names, _, meaning = entry.partition(":")
                elsewhere = re.fullmatch(r"See :class:`~?([\w.]+)\.(\w+)`\.", meaning.strip())
                there = _from_docstring(getattr(importlib.import_module(elsewhere[1]), elsewhere[2])) if elsewhere else {}
                found |= {name: there.get(name) or _plain(meaning) for name in names.split(", ")}
    return found


def _plain(text: str) -> str:
    """A docstring's text as Markdown: references and double backticks become code."""
    text = re.sub(r":\w+:`~?([^`]*)`", lambda m: f"``{m[1].rpartition('.')[2]}``", " ".join(text.split()))
    return text.replace("``", "`")


# -- in words ----------------------------------------------------------------------------------------------------------------------
def _written(value: Any) -> str:
    """A default as it would be written in a file."""
    if isinstance(value, Enum):
        value = value.value
    try:
        return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value or '""'
    except TypeError:
        return str(value)


def _values(kind: Any, metadata: list[Any]) -> str:
    """The allowed values of a type."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return " or ".join(_values(option, metadata) for option in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return ", ".join(str(option) for option in typing.get_args(kind))
    if kind is type(None):
        return "null"
    if typing.get_origin(kind) is tuple:
        return "a list"
    bounds = [
        f"{sign} {getattr(mark, bound)}"
        for mark in metadata
        for bound, sign in BOUNDS.items()
        if getattr(mark, bound, None) is not None
    ]
    names = {bool: "true, false", int: "a whole number", float: "a number", str: "a text"}
    word = names.get(kind) or ("a path" if getattr(kind, "__name__", "") == "Path" else "a value")
    return f"{word} {', '.join(bounds)}".strip()


# -- as a page ---------------------------------------------------------------------------------------------------------------------
HEAD = """# agentlab settings

<!-- made by `agentlab settings --markdown > docs/settings.md`; a test checks that it is up to date -->

Every setting of a run, from the fields that define them.  `agentlab run … --set NAME=VALUE` sets one, `agentlab run … --config FILE`
reads any from YAML, TOML or JSON; a short name (`adapt.beta`) does where only one setting ends so.  The name of a benchmark (`osworld.`)
may stand for `env.`.

    $ agentlab settings adapt.beta
{sample}
A preset of `agentlab run --adapt` names a method for the words and one for the weights, and the settings that go with them; what you say
wins.  A setting of an axis that is off is refused.

| preset | sets |
|---|---|
"""


def lines_of(setting: Setting) -> Iterator[str]:
    """A setting for the terminal."""
    yield f"{setting.name} = {setting.default}" + (f"   ({setting.of})" if setting.of else "")
    yield f"    {setting.meaning}"
    yield f"    values: {setting.values}"


def markdown() -> str:
    """``docs/settings.md``."""
    sample = "".join(f"    {line}\n" for setting in matching("adapt.beta") for line in lines_of(setting))
    page = [HEAD.format(sample=sample)]
    page += [f"| `{name}` | {_settings_of(preset.settings)} |\n" for name, preset in PRESETS.items()]
    section = None
    for setting in all_settings():
        if setting.section != section:
            section = setting.section
            page.append(f"\n## {section}\n\n| name | of | default | meaning | values |\n|---|---|---|---|---|\n")
        cells = (f"`{setting.name}`", setting.of, f"`{setting.default}`", setting.meaning, setting.values)
        page.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(page)


def _settings_of(settings: Mapping[str, Any], prefix: str = "") -> str:
    parts = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            parts.append(_settings_of(value, f"{prefix}{name}."))
        else:
            parts.append(f"`{prefix}{name}={_written(value)}`")
    return ", ".join(filter(None, parts))
