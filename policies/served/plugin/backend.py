"""What computes behind the routes: vLLM's asynchronous engine, whose workers have :mod:`policies.served.plugin.worker`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from policies.served import wire
from policies.served.files import small_files
from policies.served.plugin.app import Asked, Refused
from policies.served.plugin.heads import Plan
from policies.served.plugin.worker import ARGUMENT


class VllmBackend:
    """An engine that was started with our worker extension.

    Args:
        engine: vLLM's ``AsyncLLM``.
        source: Folder or hub id that the model was loaded from.
    """

    def __init__(self, engine: Any, source: str) -> None:
        self._engine, self._source = engine, source
        self._head: dict[str, Any] = {}

    async def start(self) -> None:
        """Install the heads in every worker.

        Raises:
            RuntimeError: this version of vLLM cannot be wrapped.
        """
        self._head = (await self._everywhere("agentlab_install"))[0][0]

    async def _everywhere(self, method: str, *args: Any) -> list[list[Any]]:
        """The results of every worker of every engine (there are several with data parallelism)."""
        core = self._engine.engine_core
        if hasattr(core, "core_engines") and len(core.core_engines) > 1:
            found: list[list[Any]] = await core.call_utility_all_async("collective_rpc", method, None, args, None)
            return found
        return [await self._engine.collective_rpc(method, args=args)]

    async def info(self) -> dict[str, Any]:
        config = self._engine.model_config
        return {
            "model": self._source,
            "vocabulary": self._head["vocabulary"],
            "hidden_size": self._head["hidden_size"],
            "plain": self._head["plain"],
            "dtype": str(config.dtype).removeprefix("torch."),
            "max_tokens": config.max_model_len,
            "tokens": max(self._head["vocabulary"], config.get_vocab_size()),
            "vision": bool(config.is_multimodal_model),
            "engine": "vllm",
        }

    def checkpoint(self) -> bytes:
        return wire.pack({}, small_files(self._source))

    async def generate(self, asked: Asked) -> wire.Unpacked:
        plan = Plan(asked.key, asked.adapter, asked.sampling, asked.seed, asked.stop[0], asked.capture)
        last = await self._run(asked, plan, asked.ids, asked.sampling.max_new_tokens)
        reply = last.outputs[0]
        tensors = await self._pop(asked, len(reply.token_ids))
        if tensors["tokens"].tolist() != list(reply.token_ids):
            raise Refused(503, "lost", "The reply's tokens and what was kept of them differ.")
        fields = {
            "finish": "length" if reply.finish_reason == "length" else "stop",
            "prompt_tokens": len(last.prompt_token_ids),
            "cached_tokens": last.num_cached_tokens or 0,
        }
        return fields, tensors

    async def score(self, asked: Asked) -> wire.Unpacked:
        ids = asked.ids + asked.reply
        # Where the reply begins is only known once pictures have become their tokens: it is counted from the end.
        plan = Plan(asked.key, None, stop=0, capture=True, score_from=-len(asked.reply))
        last = await self._run(asked, plan, ids, 1, skip_reading_prefix_cache=True)
        return {"prompt_tokens": len(last.prompt_token_ids) - len(asked.reply)}, await self._pop(asked, len(asked.reply))

    async def _run(self, asked: Asked, plan: Plan, ids: list[int], most: int, **more: Any) -> Any:
        """vLLM's last output of a request.  Raises Refused."""
        from vllm import SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError

        params = SamplingParams(
            temperature=0.0,
            max_tokens=most,
            ignore_eos=True,  # the client says what ends a reply
            stop_token_ids=asked.stop,
            detokenize=False,
            extra_args={ARGUMENT: plan.as_args()},
            **more,
        )
        prompt: dict[str, Any] = {"prompt_token_ids": ids}
        if asked.images:
            prompt["multi_modal_data"] = {"image": [Image.fromarray(picture.numpy()) for _, picture in asked.images]}
            prompt["multi_modal_uuids"] = {"image": [digest for digest, _ in asked.images]}
            prompt["mm_processor_kwargs"] = {"do_resize": False}  # they come at the size that coordinates refer to
        last = None
        try:
            async for output in self._engine.generate(prompt, params, request_id=asked.key):
                last = output
        except EngineDeadError as error:
            raise Refused(503, "engine_dead", "The engine has died.") from error
        except ValueError as error:
            raise Refused(400, "bad_request", str(error)[:500]) from error
        except asyncio.CancelledError:
            with contextlib.suppress(EngineDeadError):
                await asyncio.shield(self._everywhere("agentlab_forget", asked.key))
            raise
        if last is None or last.outputs[0].finish_reason not in ("stop", "length"):
            raise Refused(503, "lost", "The engine gave the request up.")
        return last

    async def _pop(self, asked: Asked, length: int) -> dict[str, Tensor]:
        """What the workers kept of a request.  Raises Refused."""
        found = await self._everywhere("agentlab_pop", asked.key, length, asked.adapter, asked.reply)
        answers = [engine[0] for engine in found if engine[0] is not None]
        if not answers:
            raise Refused(503, "lost", "Nothing was kept of the request.")
        fields, tensors = wire.unpack(answers[0])
        if fields["error"].startswith("unknown adapter"):
            raise Refused(404, "unknown_adapter", fields["error"])
        if fields["error"]:
            raise Refused(
                503 if "incomplete" in fields["error"] or "missing" in fields["error"] else 422, "PolicyError", fields["error"]
            )
        return tensors

    async def put(self, name: str, message: bytes) -> int:
        return int((await self._everywhere("agentlab_put", name, message))[0][0])

    async def drop(self, names: Sequence[str]) -> None:
        await self._everywhere("agentlab_drop", list(names))

    async def update(self, message: bytes, base: str | None, new: str) -> bytes:
        answer: bytes = (await self._engine.collective_rpc("agentlab_update", args=(message, base, new)))[0]
        fields, tensors = wire.unpack(answer)
        if "kind" in fields and not fields["error"] and self._several():
            theta = {name.removeprefix("theta."): value for name, value in tensors.items() if name.startswith("theta.")}
            await self.put(new, wire.pack({"kind": fields["kind"], "scale": fields["scale"]}, theta))
        return answer

    def _several(self) -> bool:
        """Whether there are more workers than the one that computed an update."""
        parallel = self._engine.vllm_config.parallel_config
        return int(parallel.world_size * parallel.data_parallel_size) > 1

    async def head(self) -> bytes:
        data: bytes = (await self._engine.collective_rpc("agentlab_head"))[0]
        return data
