"""From a name, a folder or a hub id to a chat model with its engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.errors import PolicyError, UsageError
from policies.base import Policy
from policies.causal.settings import MODELS, settings_of
from policies.sampling import SamplingConfig

ENGINE_OPTIONS = ("device", "dtype", "attn_implementation", "max_batch", "window_s", "prefix_cache_mb")


def is_text_model(name: str) -> bool:
    """Whether ``name`` is a chat model that reads text only: one of ours, or a checkpoint whose configuration says so.

    Where the configuration cannot be read (no connection, no such model) the answer is no: loading it will say what is wrong.
    """
    if name in MODELS:
        return True
    folder = Path(name).expanduser()
    try:
        if folder.is_dir():
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        elif name.count("/") == 1 and not name.startswith((".", "~", "/")) and not folder.exists():
            from transformers import PreTrainedConfig

            config, _ = PreTrainedConfig.get_config_dict(name)
        else:
            return False
    except (OSError, ValueError):
        return False
    architectures = config.get("architectures") if isinstance(config, dict) else None
    return any(str(one).endswith("ForCausalLM") for one in architectures or ())


def load_text_policy(name: str, sampling: SamplingConfig, options: Mapping[str, Any]) -> Policy:
    """A chat model as a policy.

    Raises:
        UsageError: an unknown option, device or dtype.
        SetupError: the package that holds the weights is neither installed nor available.
        PolicyError: it cannot be loaded.
    """
    from policies.causal.policy import CausalPolicy

    engine_options = {key: value for key, value in options.items() if key in ENGINE_OPTIONS}
    settings = settings_of(name, {key: value for key, value in options.items() if key not in ENGINE_OPTIONS})
    return CausalPolicy(name, load_engine(text_source(name), **engine_options), settings, sampling)


def text_source(name: str) -> str:
    """What a chat model is loaded from: a folder, or a hub id.

    Raises:
        SetupError: the package that holds its weights is unavailable.
    """
    named = MODELS.get(name)
    if named is None:
        return str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    if not named.source.startswith("package:"):
        return named.source
    from policies.causal.smollm import checkpoint

    return str(checkpoint())


def load_engine(
    source: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    attn_implementation: str | None = None,
    max_batch: int = 16,
    window_s: float = 0.02,
    prefix_cache_mb: float = 1024.0,
) -> Any:
    """The model and tokenizer of a checkpoint folder or a hub id, as a :class:`~policies.causal.engine.TextEngine`.

    Args:
        source: Folder, or ``owner/name`` on the Hugging Face hub.
        device: Torch device, or ``auto`` to spread a large model over all GPUs; default: the GPU if there is one.
        dtype: Torch dtype name; default: bfloat16 on a GPU, float32 on a CPU.
        attn_implementation: ``sdpa`` (default), ``eager``, ``flash_attention_2``.
        max_batch, window_s, prefix_cache_mb: See :class:`~policies.causal.engine.TextEngine`.

    Raises:
        PolicyError: no such model, no connection to the hub, a broken checkpoint, no chat template, or not enough memory.
        UsageError: unknown device or dtype.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from policies.causal.engine import TextEngine

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("float32" if device == "cpu" else "bfloat16")
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UsageError(f"Unknown dtype {dtype!r}.", "Use float32, bfloat16 or float16.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"Device {device!r} asked for, but torch finds no GPU.", "Use model.device=cpu.")
    placement: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=getattr(torch, dtype),
            attn_implementation=attn_implementation,
            output_loading_info=True,
            **placement,
        )
        model, report = loaded
        if report["missing_keys"]:  # transformers would go on with random numbers in their place
            raise ValueError(f"its weights lack {', '.join(sorted(report['missing_keys'])[:3])}")
        if not placement:
            model = model.to(device)
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        hint = "Check the connection, or download it elsewhere (`hf download`) and give its folder as the policy."
        raise PolicyError(
            f"{source} cannot be loaded: {reason}", "Is the checkpoint complete?" if Path(source).is_dir() else hint
        ) from error
    if not getattr(tokenizer, "chat_template", None):
        raise PolicyError(f"{source} has no chat template: it is a base model.", "Use an instruction-tuned model.")
    model.requires_grad_(False)
    return TextEngine(model.eval(), tokenizer, max_batch=max_batch, window_s=window_s, prefix_cache_mb=prefix_cache_mb)
