"""The worker extension (``--worker-extension-cls``): vLLM's model runner with heads of our own (:mod:`policies.served.plugin.heads`).

Three methods of the runner are wrapped: ``execute_model`` says which requests a step has, ``_model_forward`` gives every position of it,
``compute_logits`` gives the rows that tokens are drawn from.  They are not part of vLLM's interface, so one minor version is pinned, and
what is wrapped is looked at before it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from policies.head import is_plain
from policies.served import updates, wire
from policies.served.plugin.heads import Heads

SUPPORTED = "0.32."
"""Versions of vLLM whose runner is known."""
ARGUMENT = "agentlab"
"""What a request's ``extra_args`` name its plan."""
WRAPPED = {
    "execute_model": ("scheduler_output",),
    "_model_forward": ("input_ids", "positions"),
}
"""Methods of the runner, and parameters that they must have."""


class HeadExtension:
    """Mixed into vLLM's worker; every method is called in every worker process, between two steps."""

    model_runner: Any

    def agentlab_install(self) -> dict[str, Any]:
        """Wrap the runner; what the head is.  May be called twice.

        Raises:
            RuntimeError: this version of vLLM cannot be wrapped, or the head is quantised.
        """
        if not hasattr(self.model_runner, "agentlab"):
            self.model_runner.agentlab = Tap(self.model_runner)
        weight = self._heads.weight
        plain = is_plain(weight, self._heads.compute)
        return {"vocabulary": weight.shape[0], "hidden_size": weight.shape[1], "dtype": str(weight.dtype)[6:], "plain": plain}

    @property
    def _heads(self) -> Heads:
        heads: Heads = self.model_runner.agentlab.heads
        return heads

    def agentlab_put(self, name: str, message: bytes) -> int:
        """Keep the adapter in ``message`` under ``name``; its bytes."""
        fields, tensors = wire.unpack(message)
        theta = wire.theta_of(fields, tensors, tuple(self._heads.weight.shape))  # type: ignore[arg-type]
        return self._heads.put(name, updates.adapter_of(theta))

    def agentlab_drop(self, names: list[str]) -> int:
        """Forget adapters; how many there were."""
        return sum(self._heads.drop(name) for name in names)

    def agentlab_pop(self, key: str, length: int, adapter: str | None, reply: list[int]) -> bytes | None:
        """What a request left, once; None if another engine has it.  ``reply``: the tokens that were scored."""
        try:
            error, tensors = self._heads.pop(key, length)
        except KeyError:
            return None
        if reply and not error:
            worn = self._heads.adapters.get(adapter) if adapter else None
            if adapter and worn is None:
                return wire.pack({"error": f"unknown adapter {adapter}"})
            with torch.inference_mode():
                tensors["logprobs"] = self._heads.logprobs(tensors["hidden"], torch.tensor(reply), worn)
        return wire.pack({"error": error}, tensors)

    def agentlab_forget(self, key: str) -> None:
        """Drop what a request that was given up left."""
        self._heads.forget(key)

    def agentlab_update(self, message: bytes, base: str | None, new: str) -> bytes:
        """One weight update from an attempt's H and y; the new adapter is kept under ``new`` and comes back."""
        worn = self._heads.adapters.get(base) if base else None
        if base and worn is None:
            return wire.pack({"error": f"unknown adapter {base}"})
        answer, adapter = updates.computed(message, self._heads.weight, worn)
        if adapter is not None:
            self._heads.put(new, adapter)
        return answer

    def agentlab_head(self) -> bytes:
        """W [V, d], for clients that compute updates themselves."""
        return wire.pack({}, {"weight": self._heads.weight})

    def agentlab_counts(self) -> dict[str, int]:
        """What was done so far."""
        return dict(self._heads.counts)


class Tap:
    """The wrapped runner.

    Raises:
        RuntimeError: it is not the runner that this module knows.
    """

    def __init__(self, runner: Any) -> None:
        check(runner)
        self.runner = runner
        self._step: Any = None
        compute: Callable[..., Tensor] = runner.model.compute_logits
        self.heads = Heads(_whole_head(runner.model), compute)
        execute, forward = runner.execute_model, runner._model_forward

        def execute_model(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            self._begin(scheduler_output)
            return execute(scheduler_output, *args, **kwargs)

        def model_forward(*args: Any, **kwargs: Any) -> Any:
            result = forward(*args, **kwargs)
            if self._step is not None and self.heads.scoring and isinstance(result, Tensor):
                self.heads.passed(result, self._spans())
            return result

        def compute_logits(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            logits = compute(hidden, *args, **kwargs)
            if self._step is None or logits is None or hidden.shape[0] != runner.input_batch.num_reqs:
                return logits
            rows = [(request, first + count) for request, first, count in self._spans()]
            self._step = None  # once per step
            return self.heads.logits(logits, hidden, rows)

        runner.execute_model, runner._model_forward, runner.model.compute_logits = execute_model, model_forward, compute_logits

    def _begin(self, step: Any) -> None:
        self._step = step
        new = []
        for request in step.scheduled_new_reqs:
            given = (request.sampling_params.extra_args or {}) if request.sampling_params else {}
            if ARGUMENT in given:
                new.append((request.req_id, request.prompt_token_ids, given[ARGUMENT]))
        self.heads.begin(new, step.finished_req_ids)

    def _spans(self) -> list[tuple[str, int, int]]:
        """Of each request of the step, in the order of its rows: (id, first position, positions)."""
        batch, counts = self.runner.input_batch, self._step.num_scheduled_tokens
        return [(request, int(batch.num_computed_tokens_cpu[row]), counts[request]) for row, request in enumerate(batch.req_ids)]


def check(runner: Any) -> None:
    """Refuse a runner that is not as it was when this was written.

    Raises:
        RuntimeError: it is not.
    """
    import vllm

    if not vllm.__version__.startswith(SUPPORTED):
        raise RuntimeError(
            f"agentlab's heads are made for vLLM {SUPPORTED}x, this is {vllm.__version__}: run `agentlab fetch vllm`."
        )
    for name, parameters in WRAPPED.items():
        found = inspect.signature(getattr(runner, name)).parameters if hasattr(runner, name) else {}
        if any(parameter not in found for parameter in parameters):
            raise RuntimeError(
                f"vLLM's {type(runner).__name__}.{name} is not as agentlab knows it; VLLM_USE_V2_MODEL_RUNNER=0 is needed."
            )
    lacking = [name for name in ("req_ids", "num_reqs", "num_computed_tokens_cpu") if not hasattr(runner.input_batch, name)]
    if lacking or runner.speculative_config is not None:
        raise RuntimeError("agentlab's heads need vLLM's model runner 1, without speculative decoding.")


def _whole_head(model: Any) -> Tensor:
    """W [V, d] of the model's head; where it is split over several devices, a copy of it as a whole.

    Raises:
        RuntimeError: it is quantised, or has been added to.
    """
    from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_gather

    inner = getattr(model, "language_model", model)
    head = inner.lm_head
    head = getattr(head, "base_layer", head)
    weight = head.weight.detach()
    if weight.ndim != 2 or not weight.is_floating_point() or weight.itemsize < 2:
        raise RuntimeError("This checkpoint's head (lm_head) is quantised: adapters and log-probabilities need its weights.")
    if get_tensor_model_parallel_world_size() > 1:
        weight = tensor_model_parallel_all_gather(weight, dim=0)
    whole: Tensor = weight[: head.org_vocab_size]
    return whole
