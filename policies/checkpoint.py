"""From a folder or a hub id to an engine, with what the checkpoint declares about itself (``agentlab.json``)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from envs.errors import PolicyError, UsageError, did_you_mean
from policies.families.base import Family
from policies.families.registry import choose
from policies.families.settings import FamilySettings

if TYPE_CHECKING:
    from policies.engine import Engine

log = logging.getLogger(__name__)

SETTINGS_FILE = "agentlab.json"
ARCHITECTURES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
"""``model_type`` of the models that the engine runs, by transformers' own classes."""

ELSEWHERE: Mapping[str, str] = {
    "opencua": "OpenCUA's architecture is not part of transformers: serve it with vLLM, and ask it as openai:opencua-7b.",
}
IMAGE_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""Older and newer versions of transformers keep the image processor's settings in one or the other of these files."""

_PROMPTS = {"plain": "plain", "v1": "ui-tars-1", "1.5": "ui-tars-1.5"}
"""What ``agentlab.json`` called the families before they had names."""


@dataclass(frozen=True)
class Described:
    """What a checkpoint says of itself, read without its weights.

    Attributes:
        source: Folder or hub id.
        config: Its ``config.json``.
        names: What it calls itself: where it was made from or downloaded to.
        declared: Its ``agentlab.json``; empty without one.
    """

    source: str
    config: Mapping[str, Any]
    names: tuple[str, ...] = ()
    declared: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type"))


def family_of(name: str, checkpoint: Described, asked: str | None) -> Family:
    """The family of a checkpoint: what ``asked`` says, what it declares, its name, what it says of itself.

    Raises:
        UsageError: none can be told, or it is another architecture's.
        PolicyError: the engine does not run its architecture.
    """
    declared = checkpoint.declared.get("family")
    family = choose(name, said=checkpoint.names, declared=declared if isinstance(declared, str) else None, asked=asked)
    if checkpoint.model_type in ELSEWHERE:
        raise PolicyError(f"{name} cannot run in this process.", ELSEWHERE[checkpoint.model_type])
    if not family.architectures:
        raise UsageError(f"{family.title} runs elsewhere: its weights are not for this process.", f"Ask it as openai:{name}.")
    if checkpoint.model_type not in family.architectures:
        raise UsageError(
            f"{name} is a {checkpoint.model_type!r} model, but those of {family.title} are {' or '.join(sorted(family.architectures))}.",
            "Choose another model.family.",
        )
    return family


def settings_of(
    family: Family, checkpoint: Described | None, overrides: Mapping[str, Any], also: Iterable[str] = ()
) -> FamilySettings:
    """Family defaults < ``agentlab.json`` < ``overrides``.  ``also``: options that a user may have meant besides.

    Raises:
        PolicyError: ``agentlab.json`` cannot be understood.
        UsageError: an override is not a setting, or has a bad value.
    """
    settings = family.defaults.model_dump()
    declared = {key: value for key, value in checkpoint.declared.items() if key != "family"} if checkpoint else {}
    try:
        settings = FamilySettings.model_validate(settings | declared).model_dump()
    except ValidationError as error:
        where = f"{checkpoint.source}/{SETTINGS_FILE}" if checkpoint else SETTINGS_FILE
        raise PolicyError(f"{where} is not understood: {error}.", f"Its fields: family, {', '.join(settings)}.") from error
    try:
        chosen = FamilySettings.model_validate(settings | dict(overrides))
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        known = ("family", "platform", *FamilySettings.model_fields, *also)
        unknown = next((str(e["loc"][0]) for e in error.errors() if e["type"] == "extra_forbidden"), None)
        hint = did_you_mean(unknown, known, what="setting") if unknown else f"Settings: {', '.join(known)}."
        raise UsageError(f"Bad policy option: {details}.", hint) from error
    if chosen.variant and chosen.variant not in family.variants:
        given = ", ".join(family.variants) or "it has one prompt only"
        raise UsageError(f"{family.title} has no prompt {chosen.variant!r}.", f"model.variant: {given}.")
    if chosen.max_pixels < chosen.min_pixels:
        raise UsageError(f"max_pixels {chosen.max_pixels} is below min_pixels {chosen.min_pixels}.")
    return chosen


def describe_folder(folder: Path) -> Described:
    """What a local checkpoint says of itself.

    Raises:
        PolicyError: not a checkpoint (the message names what is missing), or not one that the engine runs.
    """
    if not folder.is_dir():
        raise PolicyError(f"{folder} is not a folder.", "Give the folder that holds config.json and the weights.")
    missing = [name for name in ("config.json", "tokenizer_config.json") if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in IMAGE_PROCESSORS):
        missing.append(" or ".join(IMAGE_PROCESSORS))
    if not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        missing.append("*.safetensors")
    if missing:
        raise PolicyError(f"{folder} is not a model checkpoint: {', '.join(missing)} missing.")
    config = _json_object(folder / "config.json")
    declared = _json_object(folder / SETTINGS_FILE) if (folder / SETTINGS_FILE).is_file() else {}
    if "family" not in declared and declared.get("prompt") in _PROMPTS:
        declared = {"family": _PROMPTS[declared.pop("prompt")], **declared}
    checkpoint = _checked(Described(str(folder), config, _names(folder, config), declared))
    unknown = [key for key in declared if key not in ("family", *FamilySettings.model_fields)]
    if unknown:
        fields = ("family", *FamilySettings.model_fields)
        raise PolicyError(
            f"{folder / SETTINGS_FILE} has an unknown field: {unknown[0]}.", did_you_mean(unknown[0], fields, what="field")
        )
    return checkpoint


def described_as(name: str, folder: Path) -> Described:
    """What the checkpoint ``name`` says of itself, whose small files are in ``folder``.

    Raises:
        PolicyError: they are not a checkpoint's, or not of one that the engine runs.
    """
    config = _json_object(folder / "config.json")
    declared = _json_object(folder / SETTINGS_FILE) if (folder / SETTINGS_FILE).is_file() else {}
    return _checked(Described(name, config, _names(Path(name), config), declared))


def describe_remote(source: str) -> Described:
    """What a checkpoint on the hub (or in its local cache) says of itself.

    Raises:
        PolicyError: it is unavailable, or the engine does not run it.
    """
    from transformers import PreTrainedConfig

    try:
        config, _ = PreTrainedConfig.get_config_dict(source)
    except (OSError, ValueError) as error:
        raise _load_error(source, error) from error
    return _checked(Described(source, config))


def _names(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The hub id, if the folder is in the hub's cache; then where the checkpoint says that it comes from."""
    cached = next((part for part in reversed(folder.absolute().parts) if part.startswith("models--")), None)
    origin = config.get("_name_or_path")
    return (
        *([cached.removeprefix("models--").replace("--", "/")] if cached else []),
        folder.resolve().name,
        *([origin] if isinstance(origin, str) and origin else []),
    )


def _json_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PolicyError(f"{path} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise PolicyError(f"{path} is not understood: a JSON object is expected.")
    return found


def _checked(checkpoint: Described) -> Described:
    if checkpoint.model_type not in (*ARCHITECTURES, *ELSEWHERE):
        raise PolicyError(
            f"{checkpoint.source} holds a {checkpoint.model_type!r} model.", f"Supported: {', '.join(ARCHITECTURES)}."
        )
    return checkpoint


# -- the weights ---------------------------------------------------------------------------------------------------------------


def load_engine(
    source: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    attn_implementation: str | None = None,
    max_batch: int = 16,
    window_s: float = 0.02,
    vision_cache_mb: float = 1024.0,
) -> Engine:
    """The model and processor of a checkpoint folder or a hub id.

    Args:
        source: Folder, or ``owner/name`` on the Hugging Face hub.
        device: Torch device, or ``auto`` to spread a large model over all GPUs; default: the GPU if there is one.
        dtype: Torch dtype name; default: bfloat16 on a GPU, float32 on a CPU.
        attn_implementation: ``sdpa`` (default), ``eager``, ``flash_attention_2``.
        max_batch, window_s, vision_cache_mb: See :class:`~policies.engine.Engine`.

    Raises:
        PolicyError: no such model, no connection to the hub, a broken checkpoint, or not enough memory.
        UsageError: unknown device or dtype.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    from policies.engine import Engine

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("float32" if device == "cpu" else "bfloat16")
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UsageError(f"Unknown dtype {dtype!r}.", "Use float32, bfloat16 or float16.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"Device {device!r} asked for, but torch finds no GPU.", "Use model.device=cpu.")
    placement: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {}
    try:
        processor = load_processor(source)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            source,
            dtype=getattr(torch, dtype),
            attn_implementation=attn_implementation or "sdpa",
            output_loading_info=True,
            **placement,
        )
        model, report = loaded
        if report["missing_keys"]:  # transformers would go on with random numbers in their place
            raise ValueError(f"its weights lack {', '.join(sorted(report['missing_keys'])[:3])}")
        if not placement:
            model = model.to(device)
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise _load_error(source, error) from error
    model.requires_grad_(False)
    return Engine(model.eval(), processor, max_batch=max_batch, window_s=window_s, vision_cache_mb=vision_cache_mb)


def load_processor(source: str) -> Any:
    """The processor of a checkpoint folder or a hub id."""
    from transformers import AutoProcessor

    path = Path(source) / "preprocessor_config.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("image_processor_type") == "NanoImageProcessor":
        from policies.nano.build import load_processor

        return load_processor(source)
    return AutoProcessor.from_pretrained(source)


def _load_error(source: str, error: Exception) -> PolicyError:
    reason = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and "out of memory" in reason.lower():
        return PolicyError(
            f"{source} does not fit into memory.", "Use model.dtype=bfloat16, model.device=auto (several GPUs) or a smaller policy."
        )
    if isinstance(error, ImportError):  # transformers names the package
        return PolicyError(
            f"{source} is quantised, and what reads it is not installed: {reason[:300]}",
            "Install that package, or take a checkpoint without quantisation.",
        )
    if isinstance(error, OSError) and not Path(source).exists():
        return PolicyError(
            f"{source} cannot be loaded from the Hugging Face hub: {reason[:200]}",
            "Check the connection, or download the checkpoint elsewhere (`hf download`) and pass its folder as the policy.",
        )
    return PolicyError(
        f"{source} cannot be loaded: {reason[:300]}", "Is the checkpoint complete, and made for this version of transformers?"
    )
