"""Out of defaults < preset < ``--config FILE`` < flags < ``--set a.b=c`` the one configuration of a run."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agentlab.disk.store import flatten
from agentlab.run.axes import honest_name, refuse_another_schedule, refuse_settings_of_axes_that_are_off, without_replaced
from agentlab.run.config import RunConfig, Settings
from agentlab.run.keys import check_keys, complete_key, is_default, nearest
from agentlab.run.presets import preset_named
from agentlab.run.values import DEEPEST, check_plain, parse_json, parse_yaml, read_settings_text
from envs.errors import UsageError
from envs.suites import default_attempts, default_limit, default_options, judged
from policies.adaptation import method_named
from policies.methods import MethodConfig
from policies.registry import writes_text
from policies.sampling import PRESETS as SAMPLING
from retrospect.config import NO_JUDGE


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
    try:
        refuse_settings_of_axes_that_are_off(adapt["preset"], said, adapt, is_default, judged=by_judge)
    except UsageError:
        _refuse_unknown_words(settings)
        raise
    refuse_another_schedule(adapt["preset"], preset, adapt)
    _refuse_experience_without_directory(said)
    try:
        config = RunConfig.model_validate(settings)
    except ValidationError as error:
        raise UsageError(_explain(error.errors()), "`agentlab settings` lists them all.") from error
    check_keys(said, types=True)
    _refuse_consistent_without_hints(config)
    _refuse_another_adapter_than_experience_makes(config)
    if config.judged and config.adapt.words.engine == "rules":
        raise UsageError(f"With env.feedback=judge {NO_JUDGE}.", "For example --set adapt.words.engine=openai:<model>.")
    return config


def _refuse_unknown_words(settings: Settings) -> None:
    """A mistyped word is what to mend first, also where its setting would do nothing."""
    try:
        RunConfig.model_validate(settings)
    except ValidationError as error:
        unknown = [one for one in error.errors() if one["type"] == "literal_error"]
        if unknown:
            raise UsageError(_explain(unknown), "`agentlab settings` lists them all.") from error
    except UsageError:
        return  # such as that no method is there to have the setting: what is off says more


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


def _refuse_another_adapter_than_experience_makes(config: RunConfig) -> None:
    """What would be found only when a session starts from stored weights, after a round of work."""
    weights, experience = config.adapt.weights, config.experience
    if (
        experience.dir is None
        or experience.weights.scope == "none"
        or not isinstance(weights, MethodConfig)
        or weights.mode == "lora"
    ):
        return
    raise UsageError(
        f"The weights that experience makes are a LoRA of the head, and adapt.weights.mode is {weights.mode}.",
        "Use --set adapt.weights.mode=lora, or --set experience.weights.scope=none.",
    )


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
        raise UsageError(f"Unknown sampling preset {name!r}.", nearest(name, SAMPLING))
    return layer | {"sampling": dataclasses.asdict(SAMPLING[name])}


def load_file(path: Path) -> Settings:
    """Settings from a file; ``adapt: rosa`` is short for ``adapt: {preset: rosa}``."""
    text = read_settings_text(path)
    try:
        data = tomllib.loads(text) if path.suffix == ".toml" else parse_json(text) if path.suffix == ".json" else parse_yaml(text)
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


def merge(*layers: Mapping[str, Any]) -> Settings:
    """Later layers win, section by section."""
    merged: Settings = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _without_none(settings: Mapping[str, Any]) -> Settings:
    return {k: _without_none(v) if isinstance(v, Mapping) else v for k, v in settings.items() if v is not None}


def _explain(errors: Iterable[ErrorDetails]) -> str:
    lines = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}{_got(e['input'])}" for e in errors]
    return "Bad setting: " + "; ".join(lines) + "."


def _got(value: Any) -> str:
    """The offending value, where it is one and not a whole section."""
    return "" if isinstance(value, Mapping | BaseModel) else f" (got {value!r})"
