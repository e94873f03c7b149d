"""A random two-layer Qwen2-VL, with processor and tokenizer, as a checkpoint folder and as an engine."""

import json

import numpy as np
import pytest

WORDS = ["Click", "the", "button", "and", "type", "a", "word", "into", "field", "Thought", "Action", "next", "second", "first"]
SETTINGS = {
    "family": "plain",
    "coordinates": "relative-1000",
    "history_images": 1,
    "history_replies": 4,
    "max_new_tokens": 12,
    "min_pixels": 400,
    "max_pixels": 409600,
}


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    from policies.nano.build import NanoConfig, build_model, save_checkpoint
    from policies.nano.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = build_tokenizer(WORDS)
    config = NanoConfig(vision_depth=1, vision_dim=32, text_dim=48, text_layers=2, heads=2, intermediate=64)
    model = build_model(config, tokenizer, seed=0)
    for name, weight in model.named_parameters():  # far from uniform logits: argmax must not hang on rounding
        if name.startswith("lm_head") or "embed_tokens" in name:
            weight.data.mul_(40)
    save_checkpoint(model, tokenizer, folder)
    (folder / "agentlab.json").write_text(json.dumps(SETTINGS))
    return folder


@pytest.fixture(scope="session")
def engine(tiny_checkpoint):
    from policies.checkpoint import load_engine

    return load_engine(str(tiny_checkpoint), device="cpu")


@pytest.fixture(scope="session")
def screens():
    """Five different screens, [220, 160, 3] uint8."""
    source = np.random.default_rng(0)
    return [source.integers(0, 256, (220, 160, 3), dtype=np.uint8) for _ in range(5)]
