"""Policies by name.  Nothing heavy is imported before it is needed: ``scripted`` works without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.base import Modality
from envs.errors import PolicyError, SetupError, UsageError, did_you_mean
from policies.base import Policy
from policies.causal.load import is_text_model, text_source
from policies.causal.settings import MODELS as TEXT_MODELS
from policies.families.registry import checkpoints, choose
from policies.families.settings import CHOICES, checked_platform
from policies.sampling import PRESETS, SamplingConfig

BUNDLED = "ui-tars-nano"
MODEL_FREE = ("noop", "random", "scripted")
CHECKPOINTS = checkpoints()
"""Named checkpoints on the Hugging Face hub."""
NAMES = (BUNDLED, *CHECKPOINTS, *TEXT_MODELS, *MODEL_FREE)

SERVED = "served:"
ELSEWHERE = ("openai:", SERVED)
"""Beginnings of the names of policies whose model runs elsewhere."""
ENGINES = ("transformers", "vllm")
"""What runs a checkpoint (``model.engine``): this process, or a server of vLLM's that it starts."""

ENGINE_OPTIONS = ("device", "dtype", "attn_implementation", "max_batch", "window_s", "vision_cache_mb")


def bundled_checkpoint() -> Path:
    """The folder of the bundled policy's weights.

    Raises:
        SetupError: this installation lacks them.
    """
    folder = Path(__file__).parent / "nano" / "weights"
    if not (folder / "config.json").is_file():
        raise SetupError(f"The bundled policy's weights are missing from {folder}.", "Reinstall the package.")
    return folder


def load_policy(name: str, *, sampling: SamplingConfig | str | None = None, **options: Any) -> Policy:
    """The policy ``name``: one of ``NAMES``, a checkpoint folder, a hub id ``owner/name``, ``openai:<model>``,
    or one that others bring (:mod:`policies.plugged`): ``my.module:MyPolicy``.

    Args:
        name: Which policy.
        sampling: How replies are drawn: settings, or the name of a preset (``official``, ``zerogui``, ``greedy``); default greedy.
        options: For text-only chat models see :func:`policies.causal.load.load_engine` and
            :class:`~policies.causal.settings.CausalSettings`.  For models that see: ``device``, ``dtype``, ``attn_implementation``,
            ``max_batch``, ``window_s``, ``vision_cache_mb``, ``family``, ``platform`` and every field of
            :class:`~policies.families.settings.FamilySettings`; for ``openai:`` the fields of
            :class:`~policies.chat.ChatOptions` and the same.

    Raises:
        UsageError: unknown name or option.
        PolicyError: the model cannot be loaded.
        SetupError: the bundled weights are missing.
    """
    chosen = _sampling(sampling)
    if name in MODEL_FREE:
        from policies.scripted import ReferencePolicy

        if options:
            raise UsageError(f"The policy {name!r} takes no options, got {', '.join(options)}.")
        return ReferencePolicy(name)
    if chosen.next_best and (name.startswith(ELSEWHERE) or options.get("engine") == "vllm"):
        raise UsageError(
            "The most probable reply that was not tried cannot be asked of an endpoint.",
            "Use sampling.next_best=false, or a policy that runs in this process.",
        )
    if name.startswith("openai:"):
        from policies.chat import load_chat_policy

        return load_chat_policy(name.removeprefix("openai:"), chosen, options)
    if name.startswith(SERVED):
        from policies.served.load import load_served

        return load_served(name, chosen, options)
    if _is_plugged(name):
        from policies.plugged import load_plugged

        return load_plugged(name, chosen, options)
    engine = checked_engine(options)
    options.pop("engine", None)
    text = is_text_model(name)
    if engine == "vllm":
        from policies.served.load import start_served

        return start_served(name, model_source(name), chosen, options)
    if text:
        from policies.causal.load import load_text_policy

        return load_text_policy(name, chosen, options)
    return _load_model(name, chosen, options)


def _is_plugged(name: str) -> bool:
    """Whether others bring the policy ``name``: an installed package, or ``my.module:MyPolicy``."""
    from policies.plugged import is_plugged

    return name not in NAMES and not name.startswith(ELSEWHERE) and is_plugged(name)


def checked_engine(options: Mapping[str, Any]) -> str:
    """``options["engine"]``: what runs a checkpoint.

    Raises:
        UsageError: there is no such engine.
    """
    engine = str(options.get("engine") or ENGINES[0])
    if engine not in ENGINES:
        raise UsageError(f"There is no engine {engine!r}.", did_you_mean(engine, ENGINES, what="engine"))
    return engine


def check_policy(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a policy, where it can be seen before it is made: it is not one, its family is not known, or has no such option.

    Raises:
        UsageError, PolicyError: it can.
    """
    if name.startswith("openai:") and not name.removeprefix("openai:").strip():
        raise UsageError("openai: needs the name of a model.", "For example openai:ui-tars-1.5-7b with OPENAI_BASE_URL set.")
    if _is_plugged(name):
        from policies.plugged import check_plugged

        check_plugged(name, options)
    elif name.startswith("openai:"):
        choose(name.removeprefix("openai:"), asked=options.get("family"))
    elif not name.startswith(ELSEWHERE) and name not in NAMES and not is_text_model(name):
        _, folder = _locate(name)
        if folder is not None:
            from policies.checkpoint import describe_folder, family_of

            family_of(name, describe_folder(folder), options.get("family"))


def needs(name: str, options: Mapping[str, Any] | None = None) -> frozenset[Modality]:
    """What an observation must have for the policy ``name``, before it is loaded: nothing for those without a model.

    Raises:
        InfrastructureError, PolicyError, SetupError: it is served, and the server does not say.
    """
    if name.startswith(SERVED):
        from policies.served.load import needs_of as served_needs

        return served_needs(name, options or {})
    if _is_plugged(name):
        from policies.plugged import needs_of

        return needs_of(name)
    if name in MODEL_FREE:
        return frozenset()
    return frozenset({"text"}) if is_text_model(name) else Policy.needs


def asks(name: str) -> Mapping[str, Any]:
    """What the policy ``name`` asks of its environments (:attr:`policies.base.Policy.env_options`), as far as it is known unloaded."""
    if name in MODEL_FREE:
        from policies.scripted import ReferencePolicy

        return ReferencePolicy(name).env_options
    if _is_plugged(name):
        from policies.plugged import asks_of

        return asks_of(name)
    return Policy.env_options


def writes_text(name: str) -> bool:
    """Whether the policy ``name`` can write text of its own (:meth:`policies.base.Policy.complete`), before it is loaded.

    Not those without a model, nor the bundled one, which knows nothing but its screens; of endpoints and of a user's own classes it is
    not known here.
    """
    if name in (*MODEL_FREE, BUNDLED) or name.startswith(ELSEWHERE) or re.match(r"[\w.]+:", name):
        return False
    folder = _folder(name)
    if folder is not None:  # a checkpoint of our own making (`agentlab pretrain`) knows no more than the bundled one
        return _image_processor(folder) != "NanoImageProcessor"
    return name in CHECKPOINTS or name in TEXT_MODELS or "/" in name


def _folder(name: str) -> Path | None:
    """The folder or file that ``name`` means, if there is one."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, not a path, or the home of nobody
        return None


def _image_processor(folder: Path) -> str:
    try:
        found = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        return str(found.get("image_processor_type", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _sampling(sampling: SamplingConfig | str | None) -> SamplingConfig:
    if isinstance(sampling, SamplingConfig):
        return sampling
    preset = sampling or "greedy"
    if preset not in PRESETS:
        raise UsageError(f"Unknown sampling preset {preset!r}.", did_you_mean(preset, PRESETS, what="preset"))
    return PRESETS[preset]


def _load_model(name: str, sampling: SamplingConfig, options: Mapping[str, Any]) -> Policy:
    source, folder = _locate(name)
    from policies.checkpoint import describe_folder, describe_remote, family_of, load_engine, settings_of
    from policies.families.policy import ModelPolicy

    platform = checked_platform(options)
    checkpoint = describe_folder(folder) if folder else describe_remote(source)
    family = family_of(BUNDLED if name == BUNDLED else name, checkpoint, options.get("family"))
    engine_options = {k: v for k, v in options.items() if k in ENGINE_OPTIONS}
    settings = settings_of(
        family, checkpoint, {k: v for k, v in options.items() if k not in (*ENGINE_OPTIONS, *CHOICES)}, ENGINE_OPTIONS
    )
    engine = load_engine(source, **engine_options)
    return ModelPolicy(name, engine, family, settings, sampling, platform)


def hub_repository(name: str) -> str | None:
    """The hub repository that the policy ``name`` is loaded from; None if it comes from elsewhere.

    Raises:
        PolicyError, UsageError: there is no such policy.
    """
    if name in (*MODEL_FREE, BUNDLED) or name.startswith(ELSEWHERE) or _is_plugged(name):
        return None
    if name in TEXT_MODELS and TEXT_MODELS[name].source.startswith("package:"):
        return None
    source, folder = _locate(name)
    return None if folder else source


def model_source(name: str) -> str:
    """The folder or hub id that the weights of the policy ``name`` are in.

    Raises:
        UsageError, PolicyError: it has no weights, or there is none of this name.
    """
    if name in MODEL_FREE or name.startswith(ELSEWHERE) or _is_plugged(name):
        raise UsageError(f"The policy {name!r} has no weights to serve.", "Give a checkpoint: a name, a folder, or a hub id.")
    return text_source(name) if is_text_model(name) else _locate(name)[0]


def _locate(name: str) -> tuple[str, Path | None]:
    """(what to load from, the folder if it is local)."""
    if name == BUNDLED:
        folder = bundled_checkpoint()
        return str(folder), folder
    if name in CHECKPOINTS:
        return CHECKPOINTS[name], None
    if name in TEXT_MODELS:
        return TEXT_MODELS[name].source, None
    path = _folder(name)
    if path is not None:
        if not (path / "config.json").is_file():
            raise PolicyError(f"There is no checkpoint at {name}.", "Give the folder that holds config.json and the weights.")
        return str(path), path
    if re.fullmatch(r"[\w-]{1,96}/[\w.-]{1,96}", name, re.ASCII) and not name.startswith("."):
        return name, None
    if "/" in name or name.startswith((".", "~")):
        raise PolicyError(f"There is no checkpoint at {name}.", "Give the folder that holds config.json and the weights.")
    raise UsageError(
        f"Unknown policy {name!r}.",
        f"{did_you_mean(name, NAMES, what='policy')} Or openai:MODEL, served:URL, my.module:MyPolicy, or a checkpoint folder.",
    )
