"""What a ROSA update costs: exact (`dual`), the paper's conjugate gradient on the head (`cg`), and through the model (`cg-full`).

All in one run, at one shape, next to the time and memory of generating the same number of tokens.  Random weights; on a CPU a
shallow backbone at the 0.5B head's shape (d=896, V=151936), on CUDA the shape of UI-TARS-7B (d=3584, V=152064, bf16, 28 layers).

    python benchmarks/rosa_cost.py --tokens 256 1024 4096
    python benchmarks/rosa_cost.py --tokens 512 --methods dual cg --cg-measured 2
    python benchmarks/rosa_cost.py --memory 4096 --vocab 152064

``cg-full`` is a direct reading of the paper, J products by automatic differentiation of the whole model: each JVP carries a tangent
through every layer and each VJP goes back through every layer, with the attention's T×T weights kept.  Only the head has
parameters that move, so J is the same (:func:`check_full` holds the two together).  On a CPU it is measured up to ``--full-tokens``.

Every measurement has a process of its own, so that its peak memory is its own: resident memory sampled every few milliseconds, or
the CUDA allocator's high-water mark.  Iterations of CG are alike, and so are generated
tokens: ``--cg-measured`` and ``--generate-measured`` run some of them and scale up (noted in the JSON).  On a shared CPU compare
``cpu_s``.  ``--memory`` measures the peak of whole updates, of the preset ``rosa`` and at rank 1, the first and one on top of it;
it and the costs keep each other's part of the JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rosa_memory
from watch import Watch

METHODS = ("generate", "dual", "cg", "cg-full")
SHAPE = ("device", "hidden", "vocab", "layers")
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


def cost(watch: Watch, method: str, tokens: int, scale: float) -> Cost:
    """The measurement, its times scaled up."""
    return Cost(method, tokens, watch.seconds * scale, watch.cpu_s * scale, watch.extra_mb, scale)


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
    # Fused attention has no forward-mode derivative.
    config = Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, attn_implementation="eager")
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
    prompt, measured = (
        torch.randint(2, min(1000, args.vocab), (1, 64), device=args.device),
        min(tokens, args.generate_measured or tokens),
    )
    options = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "pad_token_id": 1}
    model.generate(prompt, min_new_tokens=2, max_new_tokens=2, **options)  # warm-up
    with torch.no_grad(), Watch(args.device) as watch, head_hooks(model.lm_head, [None], capture=True):
        model.generate(prompt, min_new_tokens=measured, max_new_tokens=measured, **options)
    return cost(watch, "generate", tokens, tokens / measured)


def full_jacobian(model, ids):
    """The class of J products that differentiate the whole model, for the reply ``ids`` [1, T]."""
    import torch
    from torch.func import jvp, vjp

    from policies.rosa.cg import CHUNK, Jacobian

    embedded = model.model.language_model.embed_tokens(ids).detach()  # [1, T, d]

    class Full(Jacobian):
        def backbone(self, inputs):
            return model.model.language_model(inputs_embeds=inputs, use_cache=False).last_hidden_state[0].to(self.head.dtype)

        def forward(self, direction):
            H, dH = jvp(self.backbone, (embedded,), (torch.zeros_like(embedded),))
            change = [
                jvp(lambda p, h, rows=rows: self.margins(p, rows, h), (self.params, H[rows]), (direction, dH[rows]))[1]
                for rows in self._pieces()
            ]
            return jvp(self._values, (self.problem.margin,), (torch.cat(change).double(),))[1]

        def transposed(self, u):
            (u_margin,) = vjp(self._values, self.problem.margin)[1](u)
            H, back = vjp(self.backbone, embedded)
            total, dH = {name: torch.zeros_like(value) for name, value in self.params.items()}, torch.zeros_like(H)
            for rows, piece in zip(self._pieces(), u_margin.split(max(1, CHUNK // self.head.V)), strict=True):
                part, dH[rows] = vjp(lambda p, h, rows=rows: self.margins(p, rows, h), self.params, H[rows])[1](piece.to(H.dtype))
                for name in total:
                    total[name] += part[name]
            back(dH)  # of no parameter that moves: what automatic differentiation spends all the same
            return total

    return Full


def problem_of(args: argparse.Namespace, W, H, y, method: str):
    """One update's linearised step with the paper's adapter (rank 1, random A, probabilities)."""
    import torch

    from policies.adapters.lora import LoRAHead
    from policies.head_pass import HeadPass
    from policies.methods.episode import Episode
    from policies.rosa.config import PAPER, RosaConfig
    from policies.rosa.solve import Problem
    from policies.rosa.target import target_of

    config = RosaConfig(**{**PAPER, "cg_iterations": min(args.cg_measured or ITERATIONS, ITERATIONS)})
    head = HeadPass(W, H, y)
    base, free = LoRAHead.zero(config, head, 0), LoRAHead.free(config)
    assert base is not None
    moments = head.moments(None, **LoRAHead.needs(base, free, "full" if method == "dual" else "diagonal"))
    episode = Episode(torch.full((len(y),), -1.0, dtype=torch.float64), torch.zeros(len(y), dtype=torch.long))
    return Problem(head, base, free, moments, target_of(episode, moments.margin, config), config)


def update(args: argparse.Namespace, method: str, tokens: int) -> Cost:
    """Pass over the head, solve and Δθ of one update; no check after it."""
    import torch

    from policies.rosa.cg import Jacobian, cg
    from policies.rosa.solve import dual

    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    g = torch.Generator(device=args.device).manual_seed(0)
    ids = torch.randint(2, args.vocab, (1, tokens), generator=g, device=args.device)
    jacobian: type = Jacobian
    if method == "cg-full":
        model = build_model(args).requires_grad_(False)
        jacobian = full_jacobian(model, ids)
        with torch.no_grad():
            W, H = (
                model.lm_head.weight,
                model.model.language_model(inputs_embeds=model.model.language_model.embed_tokens(ids))[0][0],
            )
    else:
        W = torch.randn(args.vocab, args.hidden, generator=g, device=args.device, dtype=dtype).mul_(0.06)
        H = torch.randn(tokens, args.hidden, generator=g, device=args.device, dtype=dtype) * 0.3 + 2 * W[ids[0]]
    if method == "dual":
        dual(problem_of(args, W, H[:8], ids[0, :8], method))  # warm-up: lazy imports and thread pools are not part of the cost
        with Watch(args.device) as watch:  # charged with its pass over the head
            dual(problem_of(args, W, H, ids[0], method))
        return cost(watch, method, tokens, 1.0)
    problem = problem_of(args, W, H, ids[0], method)
    with Watch(args.device) as watch:  # the solver alone: Jᵀ R, then ten times J and Jᵀ
        done = cg(problem, jacobian, converged=0.0).iterations
    return cost(watch, method, tokens, (2 * ITERATIONS + 1) / (2 * done + 1))


def check_full() -> float:
    """Largest relative difference of J v and Jᵀ u by the whole model from those by the head, on a tiny model."""
    import torch

    from policies.rosa.cg import Jacobian

    args = argparse.Namespace(device="cpu", hidden=128, vocab=500, layers=2, cg_measured=0)
    model, ids = build_model(args).requires_grad_(False), torch.randint(2, 500, (1, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        H = model.model.language_model(inputs_embeds=model.model.language_model.embed_tokens(ids))[0][0]
    problem = problem_of(args, model.lm_head.weight, H, ids[0], "cg-full")
    ours, full = Jacobian(problem), full_jacobian(model, ids)(problem)
    v = {name: torch.randn_like(value) for name, value in ours.params.items()}
    u = torch.randn(12, dtype=torch.float64)
    pairs = [(ours.forward(v), full.forward(v)), *zip(ours.transposed(u).values(), full.transposed(u).values(), strict=True)]
    return max(float((a - b).norm() / a.norm().clamp_min(1e-30)) for a, b in pairs if bool(a.any()))


def table(costs: list[Cost]) -> str:
    """One line per measurement, with its ratios to ``dual`` and to generating."""
    lines = [f"{'T':>6} {'method':<9} {'seconds':>9} {'cpu_s':>9} {'extra MB':>9} {'/dual':>8} {'/generate':>10}"]
    for cost in costs:
        same = {other.method: other for other in costs if other.tokens == cost.tokens}
        cells = [f"{cost.cpu_s / same[m].cpu_s:.3f}" if m in same else "-" for m in ("dual", "generate")]
        head = f"{cost.tokens:>6} {cost.method:<9} {cost.seconds:>9.2f} {cost.cpu_s:>9.2f} {cost.extra_mb:>9.0f}"
        lines.append(f"{head} {cells[0]:>8} {cells[1]:>10}")
    return "\n".join(lines)


def options() -> argparse.Namespace:
    """The command line."""
    import torch

    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--memory", type=int, nargs="+", default=[], metavar="T", help="measure whole updates' memory instead")
    parser.add_argument("--settings", nargs="+", choices=rosa_memory.SETTINGS, default=list(rosa_memory.SETTINGS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if cuda else "cpu")
    parser.add_argument("--hidden", type=int, default=3584 if cuda else 896)
    parser.add_argument("--vocab", type=int, default=152064 if cuda else 151936)
    parser.add_argument("--layers", type=int, default=28 if cuda else 2)
    parser.add_argument("--full-tokens", type=int, default=4096 if cuda else 1024, help="largest T at which cg-full is measured")
    parser.add_argument("--cg-measured", type=int, default=0, help="CG iterations really run (0: all ten)")
    parser.add_argument("--generate-measured", type=int, default=0, help="tokens really generated (0: all)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rosa_cost.json")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def one(args: argparse.Namespace) -> dict[str, Any]:
    """The single measurement of a process of its own."""
    if args.memory:
        return asdict(rosa_memory.measure(args, args.settings[0], args.memory[0]))
    method, tokens = args.methods[0], args.tokens[0]
    return asdict(generate(args, tokens) if method == "generate" else update(args, method, tokens))


def alone(args: argparse.Namespace, *what: object) -> dict[str, Any]:
    """:func:`one` in a process of its own."""
    shared = [
        part
        for name in (*SHAPE, "cg_measured", "generate_measured")
        for part in (f"--{name.replace('_', '-')}", getattr(args, name))
    ]
    command = [sys.executable, __file__, "--one", *what, *shared]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """What this run has measured, written after every measurement: its parts of the JSON, the others stay."""
    import torch

    data: dict[str, Any] = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    shape = {key: getattr(args, key) for key in SHAPE} | {"threads": torch.get_num_threads()}
    part: dict[str, Any] = {"command": " ".join(["python", "benchmarks/rosa_cost.py", *sys.argv[1:]]), "shape": shape}
    args.out.parent.mkdir(parents=True, exist_ok=True)

    def write() -> None:
        args.out.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")

    if args.memory:
        data["memory"] = part | {"updates": (updates := [])}
        for tokens in args.memory:
            for setting in args.settings:
                updates.append(alone(args, "--memory", tokens, "--settings", setting))
                write()
        return data
    costs: list[dict[str, Any]] = []
    data |= part | {"costs": costs}
    for tokens in args.tokens:
        for method in args.methods:
            if method != "cg-full" or tokens <= args.full_tokens:
                costs.append(alone(args, "--methods", method, "--tokens", tokens))
                print(table([Cost(**costs[-1])]).splitlines()[1], flush=True)
                write()
    return data


def main() -> None:
    """Measure, print, write."""
    args = options()
    if args.one:
        print(json.dumps(one(args)))
        return
    data = measured(args)
    print(rosa_memory.table(data["memory"]) if args.memory else table([Cost(**cost) for cost in data["costs"]]))


if __name__ == "__main__":
    main()
