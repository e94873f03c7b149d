"""What a run is made of: its sessions, its policy, its words and its judge, and whether all of it is there."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agentlab.run.config import RunConfig
from agentlab.run.needs import policy_lacks
from envs.base import TaskSpec
from envs.errors import SetupError, UsageError
from envs.suites import check_options, get_suite, lacking, locate, remarks, shows, takes_option
from policies.base import Policy
from policies.registry import asks, check_policy, load_policy, needs, writes_text
from policies.sampling import SamplingConfig
from retrospect.config import WordsConfig
from retrospect.engines import WordsEngine, make_engine
from retrospect.judge import Judge
from retrospect.methods import method_named
from retrospect.reflect import Retrospector, preload

if TYPE_CHECKING:
    pass


def plan(config: RunConfig) -> list[TaskSpec]:
    """The sessions of a run, in order: every task instance ``repeats`` times.  A larger ``limit`` or more ``repeats`` only add some.

    Raises:
        UsageError: unknown suite or task, nothing to do, or one task twice.
    """
    names = None if config.tasks is None else list(dict.fromkeys(config.tasks))
    tasks = list(itertools.islice(get_suite(config.suite).instances(names, config.seed), config.limit))
    if not tasks:
        raise UsageError(f"Suite {config.suite!r} has no task instances for these settings.", "Check --tasks and --limit.")
    _refuse_twice(config.suite, tasks)
    check_options(tasks[0], config.env)
    check_modalities(config, tasks[0])
    check_asked(config, tasks[0], asks(config.policy))
    if config.max_steps is not None:
        tasks = [dataclasses.replace(task, max_steps=config.max_steps) for task in tasks]
    return [dataclasses.replace(task, repeat=n) for n in range(1, config.repeats + 1) for task in tasks]


def _refuse_twice(suite: str, tasks: Sequence[TaskSpec]) -> None:
    """Two workers would write into one folder.

    Raises:
        UsageError: a task is there twice.
    """
    often = Counter(task.id for task in tasks)
    twice = next((name for name, count in often.items() if count > 1), None)
    if twice is not None:
        raise UsageError(
            f"The suite {suite!r} has the task {twice!r} {often[twice]} times.",
            "An id is a task's name and seed: its instances() must give every one once; --repeats makes several sessions at each.",
        )


def check_parts(config: RunConfig) -> None:
    """Refuse parts of others' that are not what they are named as, before anything is started.

    Raises:
        UsageError: the policy or the method of the words is not one, or the policy has no such option.
    """
    check_policy(config.policy, config.model)
    method_named(config.adapt.words.method)


def check_modalities(config: RunConfig, task: TaskSpec) -> None:
    """Refuse a policy that needs what the benchmark's observations do not have.

    Raises:
        UsageError: the policy does.
    """
    given = shows(task)
    if not given or (lacking_ := needs(config.policy, config.model) - given) == frozenset():
        return
    words = {"text": "text", "picture": "pictures"}
    needed, there = (" and ".join(words[kind] for kind in sorted(kinds)) for kinds in (lacking_, given))
    raise UsageError(
        f"{config.policy} needs {needed}; {config.suite} gives {there} only.", "Choose another policy, or another benchmark."
    )


def check_asked(config: RunConfig, task: TaskSpec, asked: Mapping[str, Any]) -> None:
    """Refuse a policy that asks for what the benchmark's environments do not have.

    Raises:
        UsageError: the policy does.
    """
    for name in asked:
        if not takes_option(task, name):
            lacks = (
                "this benchmark has no expert" if name == "oracle" else f"the environments of {config.suite} have no such option"
            )
            raise UsageError(
                f"The policy {config.policy!r} asks for {name!r}, and {lacks}.", "Choose another policy, or another benchmark."
            )


def env_options(config: RunConfig, policy: Policy, task: TaskSpec) -> dict[str, Any]:
    """Options of the run's environments: the user's, and what the policy asks of them (the expert's follower: an expert).

    Raises:
        UsageError: the environment of ``task`` does not have what the policy asks for (one made by a function says so only now).
    """
    check_asked(config, task, policy.env_options)
    return config.env | dict(policy.env_options)


def open_words(config: RunConfig, policy: Policy) -> Retrospector | None:
    """The words axis of a new session; None if neither words nor credit are asked for.

    Raises:
        SetupError, UsageError: the engine is unavailable.
    """
    words = config.adapt.words
    if words.method == "none" and words.credit == "sparse":
        return None
    return Retrospector(words, _own_writer(words, policy))


def cut_short(policy: Policy, limit: int) -> str:
    """What to say where nobody has set ``sampling.max_new_tokens`` and the model's own limit, which its thoughts may need, is larger."""
    own = policy.describe().get("max_new_tokens")
    if limit != SamplingConfig().max_new_tokens or not isinstance(own, int) or own <= limit:
        return ""
    return f"Replies end at {limit} tokens, though {policy.name} may write {own}: --set sampling.max_new_tokens={own} lets it."


def open_judge(config: RunConfig, policy: Policy) -> Judge | None:
    """The judge of whole replies; None if none is asked for.

    Raises:
        SetupError, UsageError: the engine is unavailable.
    """
    words = config.adapt.words
    return Judge(words, _own_writer(words, policy)) if config.asks_judge else None


def _own_writer(words: WordsConfig, policy: Policy) -> Callable[[str], str] | None:
    """The policy's own backbone as a writer of words, where it is the engine."""
    writes = words.engine == "self" and type(policy).complete is not Policy.complete
    return functools.partial(policy.complete, max_new_tokens=words.max_tokens) if writes else None


def lesson_engine(config: RunConfig, policy: Policy) -> WordsEngine | None:
    """Who writes the lessons of a session; None for the rules.

    Raises:
        SetupError, UsageError: the engine is unavailable.
    """
    words, named = config.adapt.words, config.experience.engine
    if named is None and words.method == "none":
        named = "self" if writes_text(config.policy) else "rules"
    words = words.model_copy(update={"engine": named or words.engine})
    return make_engine(words, self_engine=_own_writer(words, policy))


def prepare(config: RunConfig, say: Callable[[str], None]) -> None:
    """Get ready what the suite needs on this machine, before anything is started; what nodes need, they are asked when a run begins.

    Raises:
        UsageError: a part of somebody else's is not what it is named as.
        SetupError: it is unavailable; the hint says how to mend it.
    """
    from envs.containers import remove_leftovers  # with Docker's client, for which other verbs need not wait

    check_parts(config)
    remove_leftovers()  # also of a run that was killed when all was done: its next start has nothing to do, and starts no containers
    if config.cluster is not None:
        check_cluster(config)
        refuse([*policy_lacks(config)])
    else:
        locate(config.suite)[0].prepare(config.env, say)
        refuse([*lacking(config.suite, config.env), *policy_lacks(config)])
        for line in remarks(config.suite, config.env, plan(config)):
            say(line)
    preload(config.adapt.words)


def check_cluster(config: RunConfig) -> None:
    """Refuse a cluster that is none, or that these environments cannot be made on; nothing is connected to.

    Raises:
        UsageError, SetupError: see above; Ray may be missing.
    """
    if config.cluster is None:
        return
    from agentlab.cluster.cluster import refuse_unspreadable
    from agentlab.cluster.connection import check_address

    check_address(config.cluster)
    refuse_unspreadable(config.suite, config.env)


def refuse(missing: Sequence[SetupError]) -> None:
    """Raises SetupError with all that is missing; nothing if nothing is."""
    if len(missing) == 1:
        raise missing[0]
    if missing:
        raise SetupError(
            "\n".join(["Several things are missing here.", *(f"- {error.message}" for error in missing)]),
            "\n".join(f"- {error.hint}" for error in missing),
        )


@contextmanager
def load_policy_of(config: RunConfig) -> Iterator[Policy]:
    """The run's policy, closed at the end."""
    policy = load_policy(config.policy, sampling=config.sampling, **config.model)
    try:
        if config.adapt.weights.method != "none" and not policy.adaptable:
            raise UsageError(
                f"--adapt {config.adapt.preset} changes weights, and the policy {config.policy!r} has none to change.",
                "Use --adapt none, textgrad or reflexion, or a policy with weights.",
            )
        if config.history == "conversation" and not policy.converses:
            raise UsageError(f"The policy {config.policy!r} begins every attempt afresh.", "Use --set history=fresh.")
        yield policy
    finally:
        policy.close()
