"""The bundled policy's architecture: a real ``Qwen2VLForConditionalGeneration``, 2.8 M parameters.

Everything that loads UI-TARS loads this one too; only the sizes differ.  Shapes at the bundled viewport (160 x 220 pixels): patch
10 gives 22 x 16 = 352 patches, merge 2 gives 88 visual tokens, one per cell of 20 x 20 pixels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from policies.nano.data import PLAIN, SETTINGS
from policies.nano.processor import NanoImageProcessor
from policies.nano.screen import CELL, COORDINATE_TINT, MERGE, PATCH

MAX_PIXELS = 640 * 640
MAX_NEW_TOKENS = 96


@dataclass(frozen=True)
class NanoConfig:
    """Sizes of the network (defaults: the bundled checkpoint).

    Attributes:
        vision_depth: Blocks of the vision tower.
        vision_dim: Its width.
        vision_mlp_ratio: Hidden width of its MLPs over its width.
        text_dim: Width of the language model (d).
        text_layers: Its blocks.
        heads: Attention heads of both towers.
        intermediate: Hidden width of the language model's MLPs.
    """

    vision_depth: int = 3
    vision_dim: int = 128
    vision_mlp_ratio: int = 2
    text_dim: int = 192
    text_layers: int = 4
    heads: int = 4
    intermediate: int = 512


def build_model(config: NanoConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> Qwen2VLForConditionalGeneration:
    """A freshly initialised model, float32, deterministic in ``seed``."""
    head_dim = config.text_dim // config.heads
    third = head_dim // 6  # mrope: time, height and width share the head_dim / 2 frequencies equally
    ids: dict[str, Any] = {name: tokenizer.convert_tokens_to_ids(token) for name, token in _SPECIAL_IDS.items()}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": config.text_dim,
        "intermediate_size": config.intermediate,
        "num_hidden_layers": config.text_layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [head_dim // 2 - 2 * third, third, third]},
        "bos_token_id": ids["eos"],
        "eos_token_id": ids["eos"],
        "pad_token_id": ids["pad"],
    }
    vision = {
        "depth": config.vision_depth,
        "embed_dim": config.vision_dim,
        "hidden_size": config.text_dim,
        "mlp_ratio": config.vision_mlp_ratio,
        "num_heads": config.heads,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "hidden_act": "silu",
    }
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(
            text_config=text,
            vision_config=vision,
            image_token_id=ids["image"],
            video_token_id=ids["video"],
            vision_start_token_id=ids["vision_start"],
            vision_end_token_id=ids["vision_end"],
            tie_word_embeddings=False,
        )
    )
    model.generation_config.eos_token_id = ids["eos"]
    model.generation_config.pad_token_id = ids["pad"]
    return model


_SPECIAL_IDS = {
    "eos": "<|im_end|>",
    "pad": "<|endoftext|>",
    "image": "<|image_pad|>",
    "video": "<|video_pad|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
}


def build_processor(tokenizer: PreTrainedTokenizerBase, coordinate_tint: float = COORDINATE_TINT) -> Qwen2VLProcessor:
    """Image processor, tokenizer and chat template in one, as ``load_processor`` gives them back."""
    sizes: dict[str, Any] = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    limits = {"shortest_edge": CELL * CELL, "longest_edge": MAX_PIXELS}
    image = NanoImageProcessor(coordinate_tint=coordinate_tint, image_mean=[0.5] * 3, image_std=[0.5] * 3, size=limits, **sizes)
    video = Qwen2VLVideoProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3, size=limits, **sizes)
    return Qwen2VLProcessor(image, tokenizer, video, chat_template=tokenizer.chat_template)


def load_processor(path: str | Path) -> Qwen2VLProcessor:
    """The processor of a checkpoint folder written by ``save_checkpoint``."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    image = NanoImageProcessor.from_pretrained(path)
    video = Qwen2VLVideoProcessor.from_pretrained(path)
    return Qwen2VLProcessor(image, tokenizer, video, chat_template=tokenizer.chat_template)


def save_checkpoint(model: Qwen2VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a checkpoint folder (float16 safetensors, processor and tokenizer files) that ``from_pretrained`` loads."""
    folder.mkdir(parents=True, exist_ok=True)
    half: Any = Qwen2VLForConditionalGeneration(model.config)
    half.load_state_dict(model.state_dict())
    half.generation_config = model.generation_config
    half.to(torch.float16).save_pretrained(folder)
    processor = build_processor(tokenizer)
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    processor.video_processor.save_pretrained(folder)
    settings = {
        "family": PLAIN.name,
        "coordinates": "relative-1000",
        "history_images": SETTINGS.history_images,
        "history_replies": SETTINGS.history_replies,
        "max_new_tokens": MAX_NEW_TOKENS,
        "min_pixels": CELL * CELL,
        "max_pixels": MAX_PIXELS,
    }
    (folder / "agentlab.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
