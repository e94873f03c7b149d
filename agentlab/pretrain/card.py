"""The model card: what was trained on what, with which command, and what it can do."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from agentlab.disk.files import write_atomic
from agentlab.pretrain.collect import HELD_SEED_START, RESERVED_SEED_START
from agentlab.pretrain.config import PretrainConfig
from agentlab.pretrain.examples import ExampleLibrary
from envs.miniwob.tasks import TRAIN_SEED_START


def write_card(config: PretrainConfig, results: dict[str, Any], found: ExampleLibrary, mistaken_screens: int) -> None:
    """Write ``MODEL_CARD.md`` into the checkpoint folder."""
    episodes = {task: len(found.train[task]) for task in config.tasks}
    screens = {task: len(found.examples[task]) for task in config.tasks}
    text = _HEAD.format(
        command=_command(config),
        tasks=len(config.tasks),
        episodes=sum(episodes.values()),
        screens=sum(screens.values()),
        weights=_WEIGHTS if config.base is None else _GOES_ON,
        first_train=TRAIN_SEED_START + config.skip,
        below=TRAIN_SEED_START,
        held=HELD_SEED_START + config.skip,
        steps=config.steps,
        guided_steps=config.guided_steps,
        batch=config.batch_size,
        samples=(config.steps + config.guided_steps) * config.batch_size,
        mistaken=mistaken_screens,
        reserved=sum(map(len, found.reserved.values())),
        first_reserved=RESERVED_SEED_START + config.skip,
    )
    write_atomic(config.out / "MODEL_CARD.md", text + _results(config, results, episodes, screens) + _LIMITS)


def _command(config: PretrainConfig) -> str:
    """The command; settings that have no option of their own stand below it, as the file that it names."""
    default, options, plan = PretrainConfig(out=config.out), [f"--out {config.out.name}"], {}
    for name, value in config.model_dump(mode="json", exclude={"out", "work", "workers"}).items():
        if value == getattr(default, name) or (name == "tasks" and config.tasks == default.tasks):
            continue
        if name in _OPTIONS:
            options.append(f"--{name.replace('_', '-')} {value}")
        else:
            plan[name] = value
    if plan:
        options.append("--plan plan.json")
    lines = ["agentlab pretrain " + " ".join(options)]
    if plan:
        text = textwrap.fill("plan.json: " + json.dumps(plan), 116, break_long_words=False, break_on_hyphens=False)
        lines += ["", *text.splitlines()]
    return "\n".join(f"    {line}".rstrip() for line in lines).lstrip()


def _results(config: PretrainConfig, results: dict[str, Any], episodes: dict[str, int], screens: dict[str, int]) -> str:
    measured = results["tasks"]
    if not measured:
        return ""
    n = results["instances"]
    rows = [
        f"| {task} | {episodes[task]} / {screens[task]} | {r['first']:.2f} | {r['failed']} | {r['guided']} | {r['sampled']} |"
        for task, r in sorted(measured.items(), key=lambda item: -item[1]["first"])
    ]
    failed = sum(r["failed"] for r in measured.values())
    guided, sampled, repeated = (sum(r[k] for r in measured.values()) for k in ("guided", "sampled", "repeated"))
    middle = sum(0.3 <= r["first"] <= 0.85 for r in measured.values())
    mean = sum(r["first"] for r in measured.values()) / len(measured)
    return _RESULTS.format(
        n=n, last=n - 1, mean=mean, middle=middle, failed=failed, guided=guided, sampled=sampled, repeated=repeated,
        rows="\n".join(rows),
    )  # fmt: skip


_OPTIONS = ("episodes", "steps", "guided_steps", "eval_instances", "seed", "base")
_WEIGHTS = "trained from scratch on a CPU"
_GOES_ON = "a checkpoint trained further on a CPU"

_HEAD = """\
# ui-tars-nano

A `Qwen2VLForConditionalGeneration` of 2.8 million parameters that plays MiniWoB++ tasks from pixels in UI-TARS's reply format. It
is there so that everything around it, the attempt loop, the critics, the adaptation of the LM head, runs on a laptop with a policy
that really succeeds and really fails. It is not a general agent: it knows the tasks below, at 160 x 220 pixels, and nothing else.

- **Input**: the instruction, optionally guidance in a fence (`retrospect.guidance.render_tried`), up to four earlier replies, the
  current screenshot. Preprocessing (patch 10, position tint 0.3) is declared in `preprocessor_config.json` and done by
  `policies.nano.processor.NanoImageProcessor`.
- **Output**: `Thought: the red box` / `Action: click(start_box='(480,580)')`, coordinates 0-1000 in steps of ten.
- **Weights**: float16 safetensors, {weights} (float32, products in bfloat16 where the processor has them).

## Training

    {command}

Behaviour cloning of the scripted experts in `envs/miniwob/oracles`: {tasks} tasks, {episodes} episodes, {screens} screens, instance
seeds from {first_train}; of instances from {held} only the words are known to the tokenizer, evaluation uses seeds below
{below}. Phase 1: {steps} batches of {batch}. Phase 2: {guided_steps} batches in which part of the prompts carry guidance
about failed attempts, composed of the phase-1 policy's own mistakes (found on {mistaken} screens of the {reserved} episodes from instance
{first_reserved} that phase 1 never saw), or an unsuccessful reply in the history. About {samples} examples in all. Muon for the
matrices, AdamW for the rest, averaged weights. Auxiliary losses, dropped afterwards: the target's cell, its offset and digits, what
two attention heads look at, each patch's characters.
"""

_RESULTS = """
## Held-out success

Real browser, greedy, seeds 0-{last} of each task, ten replies per attempt. Mean {mean:.2f}; {middle} tasks between .30 and .85.
"Again" is attempt 2 on the failed instances: under guidance about attempt 1 (greedy), and sampled at temperature 1 without
guidance; greedy without guidance repeats attempt 1. Of {failed} failures, guidance solved {guided} (and repeated attempt 1 in
{repeated}), sampling solved {sampled}.

| task | episodes / screens | success (n = {n}) | failed | again: guided | again: sampled |
|---|---|---|---|---|---|
{rows}
"""

_LIMITS = """
## What it cannot do

Other tasks, other screen sizes, other fonts than the machine's default sans-serif it was trained with (Debian's DejaVu Sans), free
instructions, free-form guidance. Where a task has few different instances (`click-tab`, `count-sides`), held-out seeds show screens
much like those of training.

## Licence of the data

The pages are MiniWoB++'s (MIT licence, package `miniwob`). The weights are released under this repository's licence.
"""
