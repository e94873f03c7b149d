"""One typed configuration of a run, resolved from defaults < preset < ``--config FILE`` < flags < ``--set a.b=c``."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from agentlab.disk.store import flatten
from agentlab.experience.config import ExperienceConfig
from agentlab.run.axes import honest_name, refuse_another_schedule, refuse_settings_of_axes_that_are_off, without_replaced
from agentlab.run.presets import preset_named
from agentlab.run.values import DEEPEST, check_plain, parse_yaml, read_settings_text
from envs.errors import UsageError
from envs.option_types import wrong_type
from envs.redaction import redacted
from envs.suites import benchmark_names, default_attempts, default_limit, default_options, default_workers, judged
from policies.adaptation import config_classes, config_of, method_named
from policies.methods import MethodConfig, NoneConfig, WeightsConfig
from policies.registry import writes_text
from policies.sampling import PRESETS as SAMPLING
from policies.sampling import SamplingConfig
from retrospect.config import NO_JUDGE, WordsConfig

Settings = dict[str, Any]
"""Nested plain settings, as they come from a file."""


class ConfigSection(BaseModel):
    """Base of our sections: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AdaptConfig(ConfigSection):
    """What happens between two attempts: two independent choices, words and weights."""

    preset: str = Field(
        default="none", description="The pair of choices by name (`agentlab run --adapt`); `WORDS+WEIGHTS` names any other pair."
    )
    switch_at: int = Field(
        default=0,
        ge=0,
        description="One axis before this attempt's update, the other from it on (ROSA2 §2); 0: both axes at every update.",
    )
    switch_first: Literal["words", "weights"] = Field(
        default="words", description="The axis that comes first where `switch_at` is not 0."
    )
    score_under: Literal["raw", "refined"] = Field(
        default="raw",
        description="Context that the residual of an update is measured in. raw: the attempt's own. refined: also under the new "
        "guidance, which costs a teacher-forced pass (ROSA2 Theorem 4.1).",
    )
    words: WordsConfig = WordsConfig()
    weights: SerializeAsAny[WeightsConfig] = NoneConfig()

    @field_validator("weights", mode="before")
    @classmethod
    def _of_its_method(cls, value: Any) -> Any:
        return config_of(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _guided_by_words(self) -> Self:
        if isinstance(self.weights, MethodConfig) and self.weights.guided and self.words.method == "none":
            raise ValueError(
                "weights.target=guided learns from guidance: a method of the words must write some (adapt.words.method)"
            )
        return self

    def axes(self, attempt: int) -> tuple[bool, bool]:
        """Whether (words, weights) learn from attempt ``attempt``."""
        words = self.words.method != "none"
        weights = self.weights.method != "none"
        if not self.switch_at:
            return words, weights
        first = attempt < self.switch_at
        return words and first == (self.switch_first == "words"), weights and first == (self.switch_first == "weights")


class RunConfig(ConfigSection):
    """Everything that determines a run's results, and the few things that only determine how fast they come."""

    suite: str = Field(default="miniwob", description="Benchmark or task suite.")
    policy: str = Field(default="ui-tars-nano", description="Policy by name, or the path of a checkpoint.")
    adapt: AdaptConfig = AdaptConfig()
    attempts: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="T_max of Algorithm 1: attempts per task. Not given: the suite's own number, of text 10.",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of the instances and of every random choice.")
    limit: int = Field(
        default=100,
        ge=1,
        le=1_000_000,
        description="Task instances of the run; a larger one extends a finished run. Not given: all of a fixed list of tasks, else 100.",
    )
    repeats: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Sessions at every task instance, which differ in the seeds that replies are drawn with; more of them extend a "
        "finished run. What is greedy is the same in all of them.",
    )
    history: Literal["fresh", "conversation"] = Field(
        default="fresh",
        description="fresh: every attempt starts from scratch. conversation: it goes on with what was said in the earlier ones "
        "(Algorithm 1), for policies that can.",
    )
    max_steps: int | None = Field(
        default=None, ge=1, le=100_000, description="Replies per attempt; null: the benchmark's own number."
    )
    tasks: tuple[str, ...] | None = Field(default=None, description="Names to restrict the suite to; null: the suite's own choice.")
    workers: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Sessions in flight at a time; null: min(4, 2 x CPUs), of emulators one per address, or one; on a cluster as many "
        "as its nodes have room for. Changes no result.",
    )
    cluster: str | None = Field(
        default=None,
        description="Make environments on the nodes of a Ray cluster: `ray`, the one that this machine is a node of, or "
        "`ray://HOST:10001`. Changes no result.",
    )
    out: Path | None = Field(
        default=None, description="Run directory; null: `runs/<suite>-<policy>-<adapt>-s<seed>`. Changes no result."
    )
    success_threshold: float = Field(
        default=1.0, gt=0, le=1, description="Score from which an attempt counts as solved (r_t = +1)."
    )
    infra_retries: int = Field(default=2, ge=0, le=100, description="How often an attempt that the machinery broke is retried.")
    keep_adapters: Literal["last", "all", "none"] = Field(
        default="last",
        description="Adapters left on disk. last: the newest of each session. all: one per update. none: the newest while a session "
        "goes on (resuming needs it), nothing once it is over. Changes no result.",
    )
    overlap: bool = Field(
        default=True,
        description="Solve for the weights while the task is reset and the next prompt's beginning is read (ROSA App. E.3). Changes no "
        "result.",
    )
    track: Literal["wandb", "mlflow", "tensorboard"] | None = Field(
        default=None, description="Experiment tracker that is also told how the run goes. Changes no result."
    )
    experience: ExperienceConfig = ExperienceConfig()
    sampling: SamplingConfig = SamplingConfig()
    model: dict[str, Any] = Field(default_factory=dict, description="Options of the policy (dtype, device, pixel budget …).")
    env: dict[str, Any] = Field(default_factory=dict, description="Options of the environment.")

    @property
    def folder(self) -> Path:
        if self.out is not None:
            return self.out
        policy = Path(self.policy).name.replace(":", "-")
        suite = re.sub(r"[^\w.-]+", "-", self.suite)
        adapt = re.sub(r"[^\w.+-]+", "-", self.adapt.preset)
        return Path("runs") / f"{suite}-{policy}-{adapt}-s{self.seed}"

    @property
    def judged(self) -> bool:
        """A judge alone says when a session ends and what is learned from it; the grader only keeps score."""
        return judged(self.suite, self.env)

    @property
    def asks_judge(self) -> bool:
        """A judge is asked, be it that it decides alone or that the weights learn from its score."""
        return self.judged or self.adapt.words.credit == "judge"

    @property
    def parallel(self) -> int:
        """Workers actually started."""
        return self.workers or default_workers(self.suite, self.env) or min(4, 2 * (os.cpu_count() or 1))

    def to_json(self) -> Settings:
        """As it is written, shown and told to trackers: without keys and passwords (of an endpoint's address)."""
        settings: Settings = redacted(self.model_dump(mode="json"))
        if self.experience.dir is None:  # nothing of it matters then
            del settings["experience"]
        if not self.asks_judge:  # likewise
            words = settings["adapt"]["words"]
            settings["adapt"]["words"] = {name: value for name, value in words.items() if not name.startswith("judge_")}
        return settings

    def at_default(self) -> set[str]:
        """Dotted keys that say what they say where nobody sets them: a run of an earlier version may lack them."""
        return flatten(self.to_json()).keys() - flatten(self.model_dump(mode="json", exclude_defaults=True)).keys()


# -- resolving ---------------------------------------------------------------------------------------------------------------------
def resolve(flags: Settings, *, file: Path | None = None, sets: Sequence[str] = (), recipe: Settings | None = None) -> RunConfig:
    """The configuration of a run.

    Args:
        flags: Nested settings from the command line; None values are unset.
        file: YAML, TOML or JSON.
        sets: ``a.b=c`` texts; the value is read as YAML.
        recipe: Nested settings that all others override: :func:`agentlab.run.recipes.settings_of_recipe`.

    Raises:
        UsageError: unreadable file, unknown key (nearest ones offered), bad value.
    """
    layers = [recipe or {}, load_file(file) if file else {}, _without_none(flags), *(parse_set(text) for text in sets)]
    for layer in layers:
        check_plain(layer)
    layers = [_expand_sampling(layer) for layer in layers]
    said = merge({}, *layers)
    section = said.get("adapt", {})
    name = section.get("preset", "none") if isinstance(section, Mapping) else "none"
    preset = preset_named(str(name))
    _know_method(merge(preset.settings, said))
    for layer in layers:
        check_keys(layer)
    suite = str(said.get("suite", RunConfig.model_fields["suite"].default))
    of_suite = {"limit": default_limit(suite), "attempts": default_attempts(suite), "env": default_options(suite)}
    settings = merge(without_replaced(preset, said), of_suite, *layers)
    adapt = settings["adapt"]
    adapt["preset"] = honest_name(str(name), preset, adapt)
    by_judge = judged(suite, _options(settings))
    settings["adapt"] = adapt = _with_writer(
        adapt, str(settings.get("policy", RunConfig.model_fields["policy"].default)), by_judge=by_judge
    )
    refuse_settings_of_axes_that_are_off(adapt["preset"], said, adapt, is_default, judged=by_judge)
    refuse_another_schedule(adapt["preset"], preset, adapt)
    _refuse_experience_without_directory(said)
    try:
        config = RunConfig.model_validate(settings)
    except ValidationError as error:
        raise UsageError(_explain(error), "`agentlab settings` lists them all.") from error
    check_keys(said, types=True)
    _refuse_consistent_without_hints(config)
    if config.judged and config.adapt.words.engine == "rules":
        raise UsageError(f"With env.feedback=judge {NO_JUDGE}.", "For example --set adapt.words.engine=openai:<model>.")
    return config


def _refuse_consistent_without_hints(config: RunConfig) -> None:
    """A setting that would silently do nothing."""
    if not config.sampling.consistent:
        return
    if not config.sampling.remembers:
        raise UsageError(
            "sampling.consistent is about what is not drawn again, and nothing is remembered.", "Add --set sampling.no_repeat=true."
        )
    if config.env.get("feedback") != "hint":
        raise UsageError("sampling.consistent needs a user who says more than that it is wrong.", "Add --set env.feedback=hint.")


def _options(settings: Settings) -> Mapping[str, Any]:
    """The environment's options, as far as they are options."""
    options = settings.get("env")
    return options if isinstance(options, Mapping) else {}


def _with_writer(adapt: Settings, policy: str, *, by_judge: bool) -> Settings:
    """Where words are learned or a judge is asked, and no engine was named, a policy that can write does so itself."""
    words = adapt.get("words", {})
    if not isinstance(words, Mapping) or "engine" in words:
        return adapt
    if (by_judge or words.get("credit") == "judge" or words.get("method", "none") != "none") and writes_text(policy):
        return {**adapt, "words": {**words, "engine": "self"}}  # copies: the preset's own settings are shared
    return adapt


def _refuse_experience_without_directory(said: Settings) -> None:
    """Raises UsageError for a setting of the experience where there is none: it would do nothing."""
    section = said.get("experience", {})
    if isinstance(section, Mapping) and section.get("dir") is None:
        for key in flatten(section):
            if key != "dir" and not is_default(f"experience.{key}", flatten(section)[key]):
                raise UsageError(
                    f"experience.{key} is a setting of the experience, and there is none.", "Name a directory: --experience DIR."
                )


def _know_method(said: Settings) -> None:
    """Load the method of the weights if it is somebody's own: its settings are then known."""
    adapt = said.get("adapt")
    weights = adapt.get("weights") if isinstance(adapt, Mapping) else None
    method = weights.get("method", "none") if isinstance(weights, Mapping) else "none"
    if method != "none":
        method_named(str(method))


def _expand_sampling(layer: Settings) -> Settings:
    """``sampling: official`` stands for the settings of that name."""
    name = layer.get("sampling")
    if not isinstance(name, str):
        return layer
    if name not in SAMPLING:
        raise UsageError(f"Unknown sampling preset {name!r}.", _nearest(name, SAMPLING))
    return layer | {"sampling": dataclasses.asdict(SAMPLING[name])}


def load_file(path: Path) -> Settings:
    """Settings from a file; ``adapt: rosa`` is short for ``adapt: {preset: rosa}``."""
    text = read_settings_text(path)
    try:
        data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text) if path.suffix == ".json" else parse_yaml(text)
    except (ValueError, RecursionError, TypeError, yaml.YAMLError) as error:  # TypeError: YAML with a list as a name
        raise UsageError(f"{path} is not valid {path.suffix.lstrip('.') or 'YAML'}: {_reason(error)}.") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"{path} must hold settings by name, not {type(data).__name__}.")
    if isinstance(data.get("adapt"), str):
        data["adapt"] = {"preset": data["adapt"]}
    return {str(key): value for key, value in data.items()}


def parse_set(text: str) -> Settings:
    """``a.b=c`` -> ``{"a": {"b": c}}``; a short key (``adapt.beta``) is completed if only one setting ends in it."""
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text!r} is not of the form key=value.", "For example --set sampling.temperature=0.7")
    try:
        value = parse_yaml(raw)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise UsageError(f"--set {key[:100]}: {raw[:100]!r} is not a value: {_reason(error)}.") from error
    if key.count(".") > DEEPEST:
        raise UsageError(f"--set {key[:100]}… is not the name of a setting.", "`agentlab settings` lists them all.")
    path = complete_key(key.strip())
    nested: Any = value
    for part in reversed(path.split(".")):
        nested = {part: nested}
    return nested


def _reason(error: Exception) -> str:
    """Why a parser refused a text, on one line."""
    return "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())


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
            raise UsageError(f"Unknown setting {prefix + str(key)!r}.", _nearest(str(key), fields))
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


def merge(*layers: Mapping[str, Any]) -> Settings:
    """Later layers win, section by section."""
    merged: Settings = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


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


def _without_none(settings: Mapping[str, Any]) -> Settings:
    return {k: _without_none(v) if isinstance(v, Mapping) else v for k, v in settings.items() if v is not None}


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else f"Known: {', '.join(known)}."


def _explain(error: ValidationError) -> str:
    lines = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}{_got(e['input'])}" for e in error.errors()]
    return "Bad setting: " + "; ".join(lines) + "."


def _got(value: Any) -> str:
    """The offending value, where it is one and not a whole section."""
    return "" if isinstance(value, Mapping | BaseModel) else f" (got {value!r})"
