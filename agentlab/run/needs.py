"""What a policy needs of this machine: GPU memory, mostly."""

from __future__ import annotations

from collections.abc import Iterator

from agentlab.run.config import RunConfig
from envs.errors import SetupError
from policies.causal.settings import MODELS
from policies.registry import CHECKPOINTS, hub_repository

GB = 1e9
WEIGHTS_GB = {
    "ui-tars-2b-sft": 4.4, "ui-tars-7b-sft": 16.6, "ui-tars-7b-dpo": 16.6, "ui-tars-72b-dpo": 146.8, "ui-tars-1.5-7b": 16.6,
}  # fmt: skip
"""Parameters in bfloat16, two bytes each."""
CACHE_BYTES = {"2b": 28 * 2 * 2, "7b": 28 * 4 * 2, "72b": 80 * 8 * 2}
"""Layers x key-value heads x 2 (keys and values) of Qwen2-VL; each is a vector of 128 numbers of two bytes per token."""
CONTEXT_TOKENS = 16_000
"""Five screens of 1920x1080 (2,691 tokens each), the instruction, and the replies so far."""
WORK_GB = 2.0
"""The vision tower on one screen, and the logits."""


def gpu_memory(policy: str, sessions: int) -> float | None:
    """GB that a named checkpoint takes with ``sessions`` at a time; None where that is not known."""
    if policy not in WEIGHTS_GB:
        return None
    size = next(size for size in ("72b", "7b", "2b") if size in policy)
    return WEIGHTS_GB[policy] + sessions * CONTEXT_TOKENS * CACHE_BYTES[size] * 128 * 2 / GB + WORK_GB


def policy_lacks(config: RunConfig) -> Iterator[SetupError]:
    """What this machine lacks for the policy, each with what mends it.  A device that the user names is not questioned."""
    needed = gpu_memory(config.policy, config.parallel)
    if hub_repository(config.policy) is None or "device" in config.model:
        return
    memory = _gpu_gigabytes()
    ways = "--policy served:URL uses a server elsewhere (`agentlab serve`)"
    if config.policy not in MODELS:  # an endpoint is asked as a family of UI agents is, and not about questions in text
        ways = f"--policy openai:{CHECKPOINTS.get(config.policy, config.policy)} uses a server elsewhere (OPENAI_BASE_URL)"
    if memory is None:
        size = f" ({needed:.0f} GB of its memory)" if needed else ""
        yield SetupError(
            f"The policy {config.policy} needs an NVIDIA GPU{size}, and there is none here.",
            f"Run on a machine that has one; {ways}; --set model.device=cpu runs it here, very slowly.",
        )
    elif needed is not None and memory < needed:
        yield SetupError(
            f"The policy {config.policy} needs about {needed:.0f} GB of GPU memory, and there are {memory:.0f} GB.",
            f"Lower --workers ({config.parallel}), take a smaller checkpoint, or {ways}; --set model.device=cuda tries all the same.",
        )


def _gpu_gigabytes() -> float | None:
    """Memory of all GPUs together, or None."""
    import torch

    if not torch.cuda.is_available():
        return None
    return sum(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())) / GB
