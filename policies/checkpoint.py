"""From a folder or a hub id to an engine, with what the checkpoint declares about itself (``agentlab.json``)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from envs.errors import PolicyError, UsageError

if TYPE_CHECKING:
    from policies.engine import Engine

log = logging.getLogger(__name__)

SETTINGS_FILE = "agentlab.json"
V1_MAX_PIXELS = 2_116_800  # a 1920 x 1080 screen is not resized


class CheckpointSettings(BaseModel):
    """How a checkpoint wants to be asked: its ``agentlab.json``, or the defaults of its family.

    Attributes:
        prompt: ``v1``, ``1.5`` or ``plain`` (see ``policies.families.ui_tars.prompt``).
        coordinates: ``relative-1000``, or ``absolute-resized``: pixels of the resized screenshot.
        language: Of the thoughts.
        history_images: Screenshots in the prompt, the current one included.
        history_replies: Earlier replies kept as text; null keeps all.
        max_new_tokens: Upper bound of a reply; a smaller sampling limit wins.
        min_pixels, max_pixels: Pixel budget of a screenshot.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Literal["v1", "1.5", "plain"] = "v1"
    coordinates: Literal["relative-1000", "absolute-resized"] = "relative-1000"
    language: str = "Chinese"
    history_images: int = Field(default=5, ge=1)
    history_replies: int | None = Field(default=None, ge=0)
    max_new_tokens: int = Field(default=1500, ge=1)
    min_pixels: int = Field(default=3136, ge=1)
    max_pixels: int = Field(default=V1_MAX_PIXELS, ge=1)


FAMILIES: dict[str, CheckpointSettings] = {
    "qwen2_vl": CheckpointSettings(),
    "qwen2_5_vl": CheckpointSettings(
        prompt="1.5", coordinates="absolute-resized", min_pixels=100 * 28**2, max_pixels=16384 * 28**2
    ),
}
"""Defaults by ``model_type``: UI-TARS 2B/7B/72B, and UI-TARS-1.5."""


def settings_of(folder: Path | None, model_type: str, overrides: dict[str, Any]) -> CheckpointSettings:
    """Family defaults < ``agentlab.json`` < ``overrides``.

    Raises:
        PolicyError: ``agentlab.json`` cannot be understood.
        UsageError: an override is not a setting, or has a bad value.
    """
    declared = FAMILIES[model_type].model_dump()
    path = folder / SETTINGS_FILE if folder else None
    if path and path.is_file():
        try:
            declared = CheckpointSettings.model_validate_json(path.read_text(encoding="utf-8")).model_dump()
        except (ValidationError, UnicodeDecodeError) as error:
            raise PolicyError(f"{path} is not understood: {error}.", "See policies/checkpoint.py for its fields.") from error
    try:
        return CheckpointSettings.model_validate(declared | overrides)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"Bad policy option: {details}.", f"Settings: {', '.join(CheckpointSettings.model_fields)}.") from error


def check_folder(folder: Path) -> str:
    """The model type of a local checkpoint.

    Raises:
        PolicyError: not a checkpoint; the message names what is missing.
    """
    if not folder.is_dir():
        raise PolicyError(f"{folder} is not a folder.", "Give the folder that holds config.json and the weights.")
    missing = [
        name for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json") if not (folder / name).is_file()
    ]
    if not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        missing.append("*.safetensors")
    if missing:
        raise PolicyError(f"{folder} is no model checkpoint: {', '.join(missing)} missing.")
    try:
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise PolicyError(f"{folder / 'config.json'} cannot be read: {error}.") from error
    if model_type not in FAMILIES:
        raise PolicyError(f"{folder} holds a {model_type!r} model.", f"Supported: {', '.join(FAMILIES)}.")
    return str(model_type)


def remote_model_type(source: str) -> str:
    """The model type of a checkpoint on the hub (or in its local cache).

    Raises:
        PolicyError: it cannot be had, or is not supported.
    """
    from transformers import PreTrainedConfig

    try:
        config, _ = PreTrainedConfig.get_config_dict(source)
    except (OSError, ValueError) as error:
        raise _load_error(source, error) from error
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise PolicyError(f"{source} is a {model_type!r} model.", f"Supported: {', '.join(FAMILIES)}.")
    return str(model_type)


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
        processor = _load_processor(source)
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


def _load_processor(source: str) -> Any:
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
    if isinstance(error, OSError) and not Path(source).exists():
        return PolicyError(
            f"{source} cannot be loaded from the Hugging Face hub: {reason[:200]}",
            "Check the connection, or download the checkpoint elsewhere (`hf download`) and pass its folder as the policy.",
        )
    return PolicyError(
        f"{source} cannot be loaded: {reason[:300]}", "Is the checkpoint complete, and made for this version of transformers?"
    )
