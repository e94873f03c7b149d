"""One typed configuration of a run, resolved from defaults < preset < ``--config FILE`` < flags < ``--set a.b=c``."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agentlab.run.presets import PRESETS
from envs.errors import UsageError
from envs.suites import default_limit, default_options, default_workers
from policies.adapt_config import WeightAdaptConfig
from policies.base import SamplingConfig
from policies.sampling import PRESETS as SAMPLING
from retrospect.config import WordsConfig

Settings = dict[str, Any]
"""Nested plain settings, as they come from a file."""


class Section(BaseModel):
    """Base of our sections: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AdaptConfig(Section):
    """What happens between two attempts: two independent choices, words and weights.

    Attributes:
        preset: Name of the pair of choices (``--adapt``).
        switch_at: One axis before this attempt's update, the other from it on (ROSA2 §2); 0 = both axes at every update.
        switch_first: The axis that comes first.
        words: The semantic stream, and the credit that it gives the steps; its method ``none`` leaves the words alone.
        weights: The parametric stream; its method ``none`` leaves the weights alone.
        score_under: ``raw``: the residual of an update is measured in the attempt's own context; ``refined``: also under the new
            guidance, which costs a teacher-forced pass (ROSA2 Theorem 4.1).
    """

    preset: str = "none"
    switch_at: int = Field(default=0, ge=0)
    switch_first: Literal["words", "weights"] = "words"
    score_under: Literal["raw", "refined"] = "raw"
    words: WordsConfig = WordsConfig(method="none")
    weights: WeightAdaptConfig = WeightAdaptConfig(method="none")

    def axes(self, attempt: int) -> tuple[bool, bool]:
        """Whether (words, weights) learn from attempt ``attempt``."""
        words = self.words.method != "none"
        weights = self.weights.method != "none"
        if not self.switch_at:
            return words, weights
        first = attempt < self.switch_at
        return words and first == (self.switch_first == "words"), weights and first == (self.switch_first == "weights")


class RunConfig(Section):
    """Everything that determines a run's results, and the few things that only determine how fast they come.

    Attributes:
        suite: Task suite, e.g. ``miniwob``.
        policy: Policy name, or a path to a checkpoint.
        attempts: T_max of Algorithm 1, attempts per task.
        seed: Of the instances and of every random choice.
        limit: Sessions of the run, by default the suite's own number; a larger one extends a finished run.
        history: ``fresh``: every attempt begins anew; ``conversation``: it goes on with what was said in the earlier ones
            (ROSA2 Algorithm 1), for policies that can.
        max_steps: Replies per attempt; None is the benchmark's own number.
        tasks: Names to restrict the suite to; None is the suite's own choice.
        workers: Sessions in flight at a time; None is min(4, 2 x CPUs), of emulators one per address, or one.
        sampling: How replies are drawn: settings, or ``official`` or ``zerogui`` for those of a published evaluation.
        out: Run directory; None is ``runs/<suite>-<policy>-<adapt>-s<seed>``.
        success_threshold: Score from which an attempt counts as solved (r_t = +1).
        infra_retries: How often an attempt that the machinery broke is made again.
        track: Experiment tracker that is also told how the run goes (:mod:`agentlab.run.tracking`).
        model: Options of the policy (dtype, device, pixel budget ...).
        env: Options of the environment.
    """

    suite: str = "miniwob"
    policy: str = "ui-tars-nano"
    adapt: AdaptConfig = AdaptConfig()
    attempts: int = Field(default=5, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    limit: int = Field(default=100, ge=1)
    history: Literal["fresh", "conversation"] = "fresh"
    max_steps: int | None = Field(default=None, ge=1)
    tasks: tuple[str, ...] | None = None
    workers: int | None = Field(default=None, ge=1)
    out: Path | None = None
    success_threshold: float = Field(default=1.0, gt=0, le=1)
    infra_retries: int = Field(default=2, ge=0)
    track: Literal["wandb", "mlflow", "tensorboard"] | None = None
    sampling: SamplingConfig = SamplingConfig()
    model: dict[str, Any] = Field(default_factory=dict)
    env: dict[str, Any] = Field(default_factory=dict)

    @field_validator("sampling")
    @classmethod
    def _check_sampling(cls, value: SamplingConfig) -> SamplingConfig:
        if value.temperature < 0:
            raise ValueError("temperature must be at least 0 (0 is greedy)")
        if not 0 < value.top_p <= 1:
            raise ValueError("top_p must be in (0, 1]")
        if value.max_new_tokens < 1:
            raise ValueError("max_new_tokens must be at least 1")
        return value

    @property
    def folder(self) -> Path:
        if self.out is not None:
            return self.out
        policy = Path(self.policy).name.replace(":", "-")
        suite = re.sub(r"[^\w.-]+", "-", self.suite)
        return Path("runs") / f"{suite}-{policy}-{self.adapt.preset}-s{self.seed}"

    @property
    def parallel(self) -> int:
        """Workers actually started."""
        return self.workers or default_workers(self.suite, self.env) or min(4, 2 * (os.cpu_count() or 1))

    def to_json(self) -> Settings:
        return self.model_dump(mode="json")


BENCHMARKS = ("androidworld", "miniwob", "osworld")
"""``--set androidworld.scroll=finger`` is ``env.scroll``: a run has one benchmark."""

CHANGES_NO_RESULT = ("workers", "out", "track")
"""Keys that may differ when a run is continued."""


# -- resolving ---------------------------------------------------------------------------------------------------------------------
def resolve(flags: Settings, *, file: Path | None = None, sets: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run.

    Args:
        flags: Nested settings from the command line; None values are unset.
        file: YAML, TOML or JSON.
        sets: ``a.b=c`` texts; the value is read as YAML.

    Raises:
        UsageError: unreadable file, unknown key (nearest ones offered), bad value.
    """
    layers = [load_file(file) if file else {}, _without_none(flags), *(parse_set(text) for text in sets)]
    layers = [_expand_sampling(layer) for layer in layers]
    for layer in layers:
        check_keys(layer)
    chosen = merge({}, *layers)
    adapt = chosen.get("adapt", {})
    suite = str(chosen.get("suite", RunConfig.model_fields["suite"].default))
    layers.insert(0, {"limit": default_limit(suite), "env": default_options(suite)})
    preset = adapt.get("preset", "none") if isinstance(adapt, Mapping) else adapt
    if preset not in PRESETS:
        raise UsageError(f"Unknown adaptation {preset!r}.", _nearest(str(preset), PRESETS))
    try:
        return RunConfig.model_validate(merge(PRESETS[preset].settings, {"adapt": {"preset": preset}}, *layers))
    except ValidationError as error:
        raise UsageError(_explain(error), "`agentlab run --help` lists the settings.") from error


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
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read the configuration {path}: {error}.") from error
    try:
        data = (
            tomllib.loads(text) if path.suffix == ".toml" else json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        )
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path} is not valid {path.suffix.lstrip('.') or 'YAML'}: {error}.") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"{path} must hold settings by name, not {type(data).__name__}.")
    if isinstance(data.get("adapt"), str):
        data["adapt"] = {"preset": data["adapt"]}
    return data


def parse_set(text: str) -> Settings:
    """``a.b=c`` -> ``{"a": {"b": c}}``; a short key (``adapt.beta``) is completed if only one setting ends in it."""
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text!r} is not of the form key=value.", "For example --set sampling.temperature=0.7")
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {key}: {raw!r} is not a value: {error}.") from error
    path = complete_key(key.strip())
    nested: Any = value
    for part in reversed(path.split(".")):
        nested = {part: nested}
    return nested


def complete_key(key: str) -> str:
    """The full dotted name of a setting; unknown names are returned as they are (and refused later, with suggestions)."""
    if key == "adapt":
        return "adapt.preset"
    benchmark, dot, option = key.partition(".")
    if dot and benchmark in BENCHMARKS:
        return f"env.{option}"
    known = list(known_keys(RunConfig))
    if key in known or any(k.startswith(f"{key}.") or (k.endswith(".*") and key.startswith(k[:-1])) for k in known):
        return key
    head, _, tail = key.rpartition(".")
    fits = [k for k in known if k.endswith(f".{key}")] or [k for k in known if k.endswith(f".{tail}") and k.startswith(head)]
    fits = [k for k in fits if k.count(".") == min(f.count(".") for f in fits)]  # the outermost section is meant
    if len(fits) > 1:
        raise UsageError(f"Setting {key!r} is ambiguous.", f"Say which: {', '.join(fits)}.")
    return fits[0] if fits else key


def known_keys(model: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings; ``name.*`` where any key is taken."""
    for name, kind in _fields(model).items():
        nested = _nested(kind)
        if nested is not None:
            yield from known_keys(nested, f"{prefix}{name}.")
        elif typing.get_origin(kind) is dict:
            yield f"{prefix}{name}.*"
        else:
            yield f"{prefix}{name}"


def check_keys(settings: Mapping[str, Any], model: Any = RunConfig, prefix: str = "") -> None:
    """Refuse unknown keys, naming the nearest known ones."""
    fields = _fields(model)
    for key, value in settings.items():
        if key not in fields:
            raise UsageError(f"Unknown setting {prefix + str(key)!r}.", _nearest(str(key), fields))
        nested = _nested(fields[key])
        if nested is not None and isinstance(value, Mapping):
            check_keys(value, nested, f"{prefix}{key}.")


def merge(*layers: Mapping[str, Any]) -> Settings:
    """Later layers win, section by section."""
    merged: Settings = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _fields(model: Any) -> dict[str, Any]:
    """Field names and types of a pydantic model or a dataclass."""
    if dataclasses.is_dataclass(model):
        hints = typing.get_type_hints(model)
        return {f.name: hints[f.name] for f in dataclasses.fields(model)}
    return {name: info.annotation for name, info in model.model_fields.items()}


def _nested(kind: Any) -> Any:
    """The section type inside ``kind`` (unwrapping ``X | None``), or None."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union else (kind,)
    return next((o for o in options if dataclasses.is_dataclass(o) or (isinstance(o, type) and issubclass(o, BaseModel))), None)


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
