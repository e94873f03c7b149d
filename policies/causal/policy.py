"""Chat models as policies: a question in, a reply out, one head adapter per session."""

from __future__ import annotations

from typing import Any

from envs.base import Modality, TaskSpec
from envs.errors import UsageError
from policies.backbone import ReadingBackbone, gpu_peak
from policies.causal.session import CausalSession
from policies.causal.settings import CausalSettings
from policies.prior.policy import StartingPolicy
from policies.sampling import SamplingConfig
from policies.thoughts import written


class CausalPolicy(StartingPolicy):
    """One frozen chat model; its sessions differ in conversation, guidance and head adapter.

    Args:
        name: As the user wrote it.
        engine: The backbone.
        settings: How it is asked.
        sampling: How replies are drawn.
    """

    adaptable = True
    converses = True
    takes_examples = True
    needs: frozenset[Modality] = frozenset({"text"})

    def __init__(self, name: str, engine: ReadingBackbone, settings: CausalSettings, sampling: SamplingConfig) -> None:
        self.name, self.settings, self.sampling = name, settings, sampling
        self._engine: ReadingBackbone | None = engine

    @property
    def engine(self) -> ReadingBackbone:
        if self._engine is None:
            raise UsageError(f"The policy {self.name} is closed.")
        return self._engine

    def open(self, task: TaskSpec, *, seed: int, adapt: Any = None) -> CausalSession:
        learner = None
        if adapt is not None and adapt.method != "none":
            learner = self.engine.learner(adapt, seed)
        return CausalSession(self.engine, task, settings=self.settings, sampling=self.sampling, seed=seed, learner=learner)

    def complete(self, text: str, *, max_new_tokens: int = 1024) -> str:
        switched = {"enable_thinking": False} if self.engine.thought_switch else {}
        prompt = self.engine.chat([{"role": "user", "content": text}], **self.settings.template() | switched)
        return written(self.engine, prompt, max_new_tokens)

    def describe(self) -> dict[str, Any]:
        return self.settings.model_dump()

    def memory(self) -> dict[str, float]:
        return {} if self._engine is None else gpu_peak(self._engine.device)

    def close(self) -> None:
        self._engine = None
