"""One typed configuration of a run; :mod:`agentlab.run.resolve` makes it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_validator, model_validator

from agentlab.disk.store import flatten
from agentlab.experience.config import ExperienceConfig
from envs.redaction import redacted
from envs.suites import default_workers, judged
from policies.adaptation import config_of
from policies.methods import MethodConfig, NoneConfig, WeightsConfig
from policies.sampling import SamplingConfig
from retrospect.config import WordsConfig

Settings = dict[str, Any]
"""Nested plain settings, as they come from a file."""


class ConfigSection(BaseModel):
    """Base of our sections: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AdaptConfig(ConfigSection):
    """What happens between two attempts: two independent choices, words and weights."""

    preset: str = Field(
        default="none", description="The pair of choices by name (`agentlab run --adapt`); `WORDS+WEIGHTS` names any other pair."
    )
    switch_at: int = Field(
        default=0,
        ge=0,
        description="One axis before this attempt's update, the other from it on (ROSA2 §2); 0: both axes at every update.",
    )
    switch_first: Literal["words", "weights"] = Field(
        default="words", description="The axis that comes first where `switch_at` is not 0."
    )
    score_under: Literal["raw", "refined"] = Field(
        default="raw",
        description="Context that the residual of an update is measured in. raw: the attempt's own. refined: also under the new "
        "guidance, which costs a teacher-forced pass (ROSA2 Theorem 4.1).",
    )
    words: WordsConfig = WordsConfig()
    weights: SerializeAsAny[WeightsConfig] = NoneConfig()

    @field_validator("weights", mode="before")
    @classmethod
    def _of_its_method(cls, value: Any) -> Any:
        return config_of(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _guided_by_words(self) -> Self:
        if isinstance(self.weights, MethodConfig) and self.weights.guided and self.words.method == "none":
            raise ValueError(
                "weights.target=guided learns from guidance: a method of the words must write some (adapt.words.method)"
            )
        return self

    def axes(self, attempt: int) -> tuple[bool, bool]:
        """Whether (words, weights) learn from attempt ``attempt``."""
        words = self.words.method != "none"
        weights = self.weights.method != "none"
        if not self.switch_at:
            return words, weights
        first = attempt < self.switch_at
        return words and first == (self.switch_first == "words"), weights and first == (self.switch_first == "weights")

    def told(self, guidance: str) -> dict[str, str]:
        """What :meth:`policies.base.PolicySession.adapt` is told of the next attempt's guidance beside the credit."""
        guided = isinstance(self.weights, MethodConfig) and self.weights.guided
        return ({"refined": guidance} if self.score_under == "refined" else {}) | ({"guidance": guidance} if guided else {})


class RunConfig(ConfigSection):
    """Everything that determines a run's results, and the few things that only determine how fast they come."""

    suite: str = Field(default="miniwob", description="Benchmark or task suite.")
    policy: str = Field(default="ui-tars-nano", description="Policy by name, or the path of a checkpoint.")
    adapt: AdaptConfig = AdaptConfig()
    attempts: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="T_max of Algorithm 1: attempts per task. Not given: the suite's own number, of text 10.",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of the instances and of every random choice.")
    limit: int = Field(
        default=100,
        ge=1,
        le=1_000_000,
        description="Task instances of the run; a larger one extends a finished run. Not given: all of a fixed list of tasks, else 100.",
    )
    repeats: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Sessions at every task instance, which differ in the seeds that replies are drawn with; more of them extend a "
        "finished run. What is greedy is the same in all of them.",
    )
    history: Literal["fresh", "conversation"] = Field(
        default="fresh",
        description="fresh: every attempt starts from scratch. conversation: it goes on with what was said in the earlier ones "
        "(Algorithm 1), for policies that can.",
    )
    max_steps: int | None = Field(
        default=None, ge=1, le=100_000, description="Replies per attempt; null: the benchmark's own number."
    )
    tasks: tuple[str, ...] | None = Field(default=None, description="Names to restrict the suite to; null: the suite's own choice.")
    workers: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Sessions in flight at a time; null: min(4, 2 x CPUs), of emulators one per address, or one; on a cluster as many "
        "as its nodes have room for. Changes no result.",
    )
    cluster: str | None = Field(
        default=None,
        description="Make environments on the nodes of a Ray cluster: `ray`, the one that this machine is a node of, or "
        "`ray://HOST:10001`. Changes no result.",
    )
    out: Path | None = Field(
        default=None, description="Run directory; null: `runs/<suite>-<policy>-<adapt>-s<seed>`. Changes no result."
    )
    success_threshold: float = Field(
        default=1.0, gt=0, le=1, description="Score from which an attempt counts as solved (r_t = +1)."
    )
    infra_retries: int = Field(default=2, ge=0, le=100, description="How often an attempt that the machinery broke is retried.")
    keep_adapters: Literal["last", "all", "none"] = Field(
        default="last",
        description="Adapters left on disk. last: the newest of each session. all: one per update. none: the newest while a session "
        "goes on (resuming needs it), nothing once it is over. Changes no result.",
    )
    overlap: bool = Field(
        default=True,
        description="Solve for the weights while the task is reset and the next prompt's beginning is read (ROSA App. E.3). Changes no "
        "result.",
    )
    track: Literal["wandb", "mlflow", "tensorboard"] | None = Field(
        default=None, description="Experiment tracker that is also told how the run goes. Changes no result."
    )
    experience: ExperienceConfig = ExperienceConfig()
    sampling: SamplingConfig = SamplingConfig()
    model: dict[str, Any] = Field(default_factory=dict, description="Options of the policy (dtype, device, pixel budget …).")
    env: dict[str, Any] = Field(default_factory=dict, description="Options of the environment.")

    @property
    def folder(self) -> Path:
        if self.out is not None:
            return self.out
        policy = Path(self.policy).name.replace(":", "-")
        suite = re.sub(r"[^\w.-]+", "-", self.suite)
        adapt = re.sub(r"[^\w.+-]+", "-", self.adapt.preset)
        return Path("runs") / f"{suite}-{policy}-{adapt}-s{self.seed}"

    @property
    def judged(self) -> bool:
        """A judge alone says when a session ends and what is learned from it; the grader only keeps score."""
        return judged(self.suite, self.env)

    @property
    def asks_judge(self) -> bool:
        """A judge is asked, be it that it decides alone or that the weights learn from its score."""
        return self.judged or self.adapt.words.credit == "judge"

    @property
    def parallel(self) -> int:
        """Workers actually started."""
        return self.workers or default_workers(self.suite, self.env) or min(4, 2 * (os.cpu_count() or 1))

    def to_json(self) -> Settings:
        """As it is written, shown and told to trackers: without keys and passwords (of an endpoint's address)."""
        settings: Settings = redacted(self.model_dump(mode="json"))
        if self.experience.dir is None:  # nothing of it matters then
            del settings["experience"]
        if not self.asks_judge:  # likewise
            words = settings["adapt"]["words"]
            settings["adapt"]["words"] = {name: value for name, value in words.items() if not name.startswith("judge_")}
        return settings

    def at_default(self) -> set[str]:
        """Dotted keys that say what they say where nobody sets them: a run of an earlier version may lack them."""
        return flatten(self.to_json()).keys() - flatten(self.model_dump(mode="json", exclude_defaults=True)).keys()
