"""A text-only benchmark of three families for a model of forty words: an answer is right if it has the family's word in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from envs import actions as act
from envs.base import Observation, TaskSpec, TaskSuite
from envs.benchmark import Benchmark
from envs.text import TextEnv

ENV_ID = "agentlab/vocabulary-v0"
FAMILIES = {"low": range(0, 12), "middle": range(12, 26), "high": range(26, 40)}
WORDS = [f"w{n}" for n in range(40)] + ["<|im_start|>", "<|im_end|>", "user", "assistant", "system", "[UNK]", "\n"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} \n {{ m['content'] }} <|im_end|> \n {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant \n{% endif %}"
)


class VocabularyEnv(TextEnv):
    """One question, one answer."""

    hostile: ClassVar[str] = ""
    """What every question ends with."""

    def __init__(self, *, render_mode: str | None = None) -> None:
        super().__init__(kinds=(act.Answer, act.Finished, act.Invalid), render_mode=render_mode)
        self._task: TaskSpec | None = None
        self._said: str | None = None

    def _default_task(self, seed: int) -> TaskSpec:
        return _spec("low", seed)

    def _start(self, task: TaskSpec) -> str:
        self._task, self._said = task, None
        return self._question()

    def _question(self) -> str:
        assert self._task is not None
        return f"w{self._task.seed % 40} w{list(FAMILIES).index(self._task.name)}{type(self).hostile}"

    def _execute(self, action: act.Action) -> None:
        assert isinstance(action, act.Answer)
        self._said = action.text

    def _observe(self) -> Observation:
        return {"text": self._question()}

    def _ended(self) -> bool:
        return self._said is not None

    def _grade(self, last: act.Action | None) -> float:
        assert self._task is not None
        wanted = {f"w{n}" for n in FAMILIES[self._task.name]}
        return float(self._said is not None and self._said.split()[-1:] != [] and self._said.split()[0] in wanted)


def _spec(name: str, seed: int) -> TaskSpec:
    return TaskSpec(ENV_ID, name, seed, max_steps=1, domain="words")


class VocabularySuite(TaskSuite):
    name = "vocabulary"
    default_limit = 12

    def task_names(self) -> list[str]:
        return list(FAMILIES)

    def instances(self, names: Sequence[str] | None, seed: int) -> Iterator[TaskSpec]:
        chosen = list(names or FAMILIES)
        return (_spec(chosen[n % len(chosen)], seed * 1000 + n) for n in itertools.count())


class Vocabulary(Benchmark):
    name = "vocabulary"
    summary = "words"
    environment = "vocabulary:VocabularyEnv"

    def suite(self, part: str = "") -> TaskSuite:
        return VocabularySuite()

    def default_workers(self, options: Mapping[str, Any]) -> int | None:
        return 1


def model(folder: Path, hidden: int = 32) -> Path:
    """A small chat model with weights of its own, saved as a checkpoint; it says a word or two, and stops."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=hidden, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=1024, eos_token_id=WORDS.index("<|im_end|>"),
        tie_word_embeddings=False,
    )  # fmt: skip
    made = AutoModelForCausalLM.from_config(config).eval()
    made.get_input_embeddings().weight.data.mul_(30)
    head, stop = made.lm_head.weight.data, WORDS.index("<|im_end|>")
    with torch.no_grad():  # after a word it ends, after a line it begins
        H = made.model(torch.arange(len(WORDS))[:, None]).last_hidden_state[:, 0]  # [V, d] of every word by itself
        ends = H[:40].mean(0) - H[WORDS.index("\n")]
        head.mul_(2)
        head[40:] = 0
        head[stop] = ends * (4 / (H[:40] @ ends).mean())
        head[:40] -= head[:40].mean(0)
    made.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|im_end|>", unk_token="[UNK]")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


if ENV_ID not in gym.registry:
    gym.register(ENV_ID, entry_point=VocabularyEnv, disable_env_checker=True, order_enforce=False)
