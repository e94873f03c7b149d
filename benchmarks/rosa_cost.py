"""What a ROSA update costs: exact (`dual`), the paper's conjugate gradient on the head (`cg`), and through the model (`cg-full`).

All in one run, at one shape, next to the time and memory of generating the same number of tokens.  Random weights; on a CPU a
shallow backbone at the 0.5B head's shape (d=896, V=151936), on CUDA the shape of UI-TARS-7B (d=3584, V=152064, bf16, 28 layers).

    python benchmarks/rosa_cost.py --tokens 256 1024 4096
    python benchmarks/rosa_cost.py --tokens 512 --methods dual cg --cg-measured 2

Every measurement has a process of its own, so that its peak memory is its own.  Iterations of CG are alike, and so are generated
tokens: ``--cg-measured`` and ``--generate-measured`` run some of them and scale up (noted in the JSON).  On a shared CPU compare
``cpu_s``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

METHODS = ("generate", "dual", "cg", "cg-full")
ITERATIONS = 10


@dataclass
class Cost:
    """One measurement.  ``extra_mb``: rise of the process's (or device's) peak memory above what the model and H take."""

    method: str
    tokens: int
    seconds: float
    cpu_s: float
    extra_mb: float
    scaled_by: float = 1.0


def clock(device: str) -> tuple[float, float, float]:
    """Seconds, CPU seconds, and peak memory in MB."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter(), time.process_time(), torch.cuda.max_memory_allocated() / 2**20
    return time.perf_counter(), time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def build_model(args: argparse.Namespace):
    """A Qwen2-VL of random weights with the head's real shape."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    heads = args.hidden // (64 if args.hidden < 2048 else 128)
    text = {"vocab_size": args.vocab, "hidden_size": args.hidden, "num_hidden_layers": args.layers, "num_attention_heads": heads}
    text |= {"num_key_value_heads": 2 if heads % 4 else 4, "intermediate_size": int(args.hidden * 5.3), "bos_token_id": 0}
    half = args.hidden // heads // 2
    text |= {"rope_scaling": {"type": "mrope", "mrope_section": [half // 4, half * 3 // 8, half * 3 // 8]}, "eos_token_id": 1}
    vision = {"depth": 1, "embed_dim": 64, "num_heads": 2, "hidden_size": args.hidden}
    config = Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if args.device == "cuda" else torch.float32)
    with torch.device(args.device):
        model = Qwen2VLForConditionalGeneration(config).eval()
    torch.set_default_dtype(torch.float32)
    return model


def generate(args: argparse.Namespace, tokens: int) -> Cost:
    """Generating ``tokens`` tokens, capturing H as while acting."""
    import torch

    from policies.head import head_hooks

    model = build_model(args)
    prompt, measured = torch.randint(2, 1000, (1, 64), device=args.device), min(tokens, args.generate_measured or tokens)
    options = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "pad_token_id": 1}
    model.generate(prompt, min_new_tokens=2, max_new_tokens=2, **options)  # warm-up
    start = clock(args.device)
    with torch.no_grad(), head_hooks(model.lm_head, [None], capture=True):
        model.generate(prompt, min_new_tokens=measured, max_new_tokens=measured, **options)
    end, scale = clock(args.device), tokens / measured
    return Cost("generate", tokens, (end[0] - start[0]) * scale, (end[1] - start[1]) * scale, end[2] - start[2], scale)


def update(args: argparse.Namespace, method: str, tokens: int) -> Cost:
    """Pass over the head, solve and Δθ of one update, the paper's adapter (rank 1, random A, probabilities); no check after it."""
    import torch

    from policies.adapt_config import preset
    from policies.head_pass import HeadPass
    from policies.rosa.cg import Jacobian, cg, cg_needs
    from policies.rosa.solve import Problem, dual, needs
    from policies.rosa.step import Episode, equations, free_parameters, initial

    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    g = torch.Generator(device=args.device).manual_seed(0)
    model = build_model(args) if method == "cg-full" else None
    ids = torch.randint(2, args.vocab, (1, tokens), generator=g, device=args.device)
    if model is not None:
        W, H = model.lm_head.weight, model.model(input_ids=ids).last_hidden_state[0].detach()
    else:
        W = torch.randn(args.vocab, args.hidden, generator=g, device=args.device, dtype=dtype).mul_(0.06)
        H = torch.randn(tokens, args.hidden, generator=g, device=args.device, dtype=dtype) * 0.3 + 2 * W[ids[0]]
    measured = ITERATIONS if method == "dual" else min(args.cg_measured or ITERATIONS, ITERATIONS)
    config = preset("rosa-paper", cg_iterations=measured, cg_tolerance=0.0)

    class Full(Jacobian):
        """Each product runs the backbone again, as a direct reading of the paper does."""

        def _refresh(self) -> None:
            with torch.no_grad():
                self.head.H = model.model(input_ids=ids).last_hidden_state[0].to(self.head.dtype)

        def forward(self, direction):
            self._refresh()
            return super().forward(direction)

        def transposed(self, u):
            self._refresh()
            return super().transposed(u)

    def run(H, y) -> float:
        """Solve once; returns when the solver began."""
        head = HeadPass(W, H, y, memory_mb=160 if args.device == "cuda" else 512)
        base, free = initial(config, head, 0), free_parameters(config)
        wanted = needs(True, free, base) if method == "dual" else needs(True, free, base) | cg_needs(True, True)
        moments = head.moments(None, **wanted)
        episode = Episode(torch.full((len(y),), -1.0, dtype=torch.float64), torch.zeros(len(y), dtype=torch.long))
        problem = Problem(head, base, free, moments, equations(episode, moments.margin, config), config)
        began = clock(args.device)
        dual(problem) if method == "dual" else cg(problem, Full if method == "cg-full" else Jacobian)
        return began

    if method != "cg-full":
        run(H[:8], ids[0, :8])  # warm-up: lazy imports and thread pools are not part of the cost
    start = clock(args.device)
    began = run(H, ids[0])
    end = clock(args.device)
    # CG's own cost is in the solver alone (Jᵀ R, then ten times J and Jᵀ); `dual` is charged with its pass over the head.
    begin = start if method == "dual" else began
    scale = 1.0 if method == "dual" else (2 * ITERATIONS + 1) / (2 * measured + 1)
    return Cost(method, tokens, (end[0] - begin[0]) * scale, (end[1] - begin[1]) * scale, end[2] - start[2], scale)


def table(costs: list[Cost]) -> str:
    """One line per measurement, with its ratios to ``dual`` and to generating."""
    lines = [f"{'T':>6} {'method':<9} {'seconds':>9} {'cpu_s':>9} {'extra MB':>9} {'/dual':>8} {'/generate':>10}"]
    for cost in costs:
        same = {other.method: other for other in costs if other.tokens == cost.tokens}
        cells = [f"{cost.cpu_s / same[m].cpu_s:.3f}" if m in same else "-" for m in ("dual", "generate")]
        head = f"{cost.tokens:>6} {cost.method:<9} {cost.seconds:>9.2f} {cost.cpu_s:>9.2f} {cost.extra_mb:>9.0f}"
        lines.append(f"{head} {cells[0]:>8} {cells[1]:>10}")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    import torch

    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if cuda else "cpu")
    parser.add_argument("--hidden", type=int, default=3584 if cuda else 896)
    parser.add_argument("--vocab", type=int, default=152064 if cuda else 151936)
    parser.add_argument("--layers", type=int, default=28 if cuda else 2)
    parser.add_argument("--cg-measured", type=int, default=0, help="CG iterations really run (0: all ten)")
    parser.add_argument("--generate-measured", type=int, default=0, help="tokens really generated (0: all)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rosa_cost.json")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        method, tokens = args.methods[0], args.tokens[0]
        print(json.dumps(asdict(generate(args, tokens) if method == "generate" else update(args, method, tokens))))
        return
    costs = []
    shared = ["--device", args.device, "--hidden", args.hidden, "--vocab", args.vocab, "--layers", args.layers]
    shared += ["--cg-measured", args.cg_measured, "--generate-measured", args.generate_measured]
    for tokens in args.tokens:
        for method in args.methods:
            command = [sys.executable, __file__, "--one", "--methods", method, "--tokens", tokens, *shared]
            done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True)
            costs.append(Cost(**json.loads(done.stdout.strip().splitlines()[-1])))
            print(table(costs[-1:]).splitlines()[1], flush=True)
            shape = {key: getattr(args, key) for key in ("device", "hidden", "vocab", "layers")} | {
                "threads": torch.get_num_threads()
            }
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps({"shape": shape, "costs": [asdict(cost) for cost in costs]}, indent=2) + "\n")
    print(table(costs))


if __name__ == "__main__":
    main()
