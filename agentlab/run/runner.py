"""Many sessions at a time: threads with an environment each, one shared policy, one run directory."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from agentlab.disk.files import write_atomic
from agentlab.disk.row import Row
from agentlab.disk.rows import session_over
from agentlab.disk.store import CHANGES_NO_RESULT, GROWS, RunStore
from agentlab.experience.course import Course, Round
from agentlab.run.config import RunConfig
from agentlab.run.memory import MemoryWatch
from agentlab.run.needs import policy_lacks
from agentlab.run.rounds import Rounds
from agentlab.run.session import Interrupted, Session, derive_seed
from agentlab.run.worker import open_cluster, slots
from envs.base import TaskSpec
from envs.errors import SetupError, UsageError
from envs.slot import Slot
from envs.suites import check_options, get_suite, lacking, locate, remarks, shows
from policies.base import Policy
from policies.registry import check_policy, load_policy, needs, writes_text
from retrospect.config import WordsConfig
from retrospect.engines import WordsEngine, make_engine
from retrospect.judge import Judge
from retrospect.methods import method_named
from retrospect.reflect import Retrospector, preload

if TYPE_CHECKING:
    from agentlab.cluster.cluster import Cluster


def plan(config: RunConfig) -> list[TaskSpec]:
    """The sessions of a run, in order: every task instance ``repeats`` times.  A larger ``limit`` or more ``repeats`` only add some.

    Raises:
        UsageError: unknown suite or task, or nothing to do.
    """
    tasks = list(itertools.islice(get_suite(config.suite).instances(config.tasks, config.seed), config.limit))
    if not tasks:
        raise UsageError(f"Suite {config.suite!r} has no task instances for these settings.", "Check --tasks and --limit.")
    check_options(tasks[0], config.env)
    check_modalities(config, tasks[0])
    if config.max_steps is not None:
        tasks = [dataclasses.replace(task, max_steps=config.max_steps) for task in tasks]
    return [dataclasses.replace(task, repeat=n) for n in range(1, config.repeats + 1) for task in tasks]


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


class Runner:
    """Runs the sessions of a plan that the run directory does not have yet.

    Every session's randomness is derived from (seed, task id), and nothing but the frozen backbone is shared, so results do not
    depend on which worker runs a session, or when, but for the rounding of batched products: a token that two replies draw from
    differently composed batches can differ where two logits are equal to about six digits.  ``workers=1`` excludes even that.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        on_row: Callable[[Row], None] = lambda row: None,
        retry_infrastructure: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.config = config
        self.tasks = plan(config)
        self.on_row = on_row
        self.retry_infrastructure = retry_infrastructure
        self.say = say
        self.stop = threading.Event()
        self.cluster: Cluster | None = None

    @property
    def folder(self) -> Path:
        return self.config.folder

    def about(self) -> str:
        """What the line of progress says beside the results: the nodes of the run's cluster."""
        return self.cluster.summary() if self.cluster is not None else ""

    def run(self, on_start: Callable[[list[Row]], None] = lambda rows: None) -> list[Row]:
        """Make all missing attempts and return all rows of the run, in the order of the plan.

        Args:
            on_start: Called once with the rows that were there already.

        Raises:
            KeyboardInterrupt: stopped by Ctrl-C; everything is closed and the run can be continued.
            LabError: the run cannot go on.
        """
        store = RunStore.open(
            self.folder, self.config.to_json(), say=self.say, free=CHANGES_NO_RESULT, grows=GROWS, implied=self.config.at_default()
        )
        try:
            todo = self._todo(store)
            on_start(store.rows())
            if todo or self.config.experience.dir is not None:  # a round may have ended without having been added
                with self._connected(), load_policy_of(self.config) as policy, self._course(policy) as course:
                    write_atomic(self.folder / "policy.json", json.dumps(policy.describe(), indent=2) + "\n")
                    self._run(todo, policy, store, course)
            store.sort([task.id for task in self.tasks])
            return store.rows()
        finally:
            store.close()

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Connected to the run's cluster, if it has one; what is missing there is said before a model is loaded."""
        if self.config.cluster is None:
            yield
            return
        self.cluster = open_cluster(self.config, self.config.env, self.say)
        try:
            yield
        finally:
            self.cluster.close()

    def _todo(self, store: RunStore) -> list[TaskSpec]:
        todo = []
        for task in self.tasks:
            session = store.session(task.id)
            rows = session.rows()
            if self.retry_infrastructure and rows and not rows[-1].graded:
                session.set_aside(len(rows))
                rows.pop()
            session.prune_adapters(self.config.keep_adapters)  # a run that was killed may have left some
            if not session_over(rows):
                todo.append(task)
        return todo

    def _course(self, policy: Policy) -> AbstractContextManager[Course | None]:
        """The run's experience, closed at the end; None if it has none."""
        config = self.config.experience
        if config.dir is None:
            return nullcontext()
        return closing(Course(config, self.folder, policy, locate(self.config.suite)[0].name, self.say))

    def _run(self, todo: Sequence[TaskSpec], policy: Policy, store: RunStore, course: Course | None) -> None:
        rounds = [Round(0, tuple(todo))] if course is None else course.rounds(self.tasks)
        unfinished = {task.id for task in todo}
        # Of a round that has not been added, what its ended sessions leave may not be written yet.
        parts = [[task for task in r.tasks if task.id in unfinished or (course and course.adds(r))] for r in rounds]
        turns = Rounds(parts, (lambda n: course.end(rounds[n], store)) if course else (lambda n: None), self.stop)
        most = max(map(len, parts), default=0)
        if not most:
            return
        options = env_options(self.config, policy)
        with (
            slots(self.config, options, most, cluster=self.cluster, stop=self.stop) as places,
            MemoryWatch(policy) as memory,
            stop_on_signals(self.stop),
            ThreadPoolExecutor(len(places), "worker") as pool,
        ):
            work = functools.partial(self._work, turns, policy, store, memory, course=course, rounds=rounds)
            futures = [pool.submit(work, place) for place in places]
            self._wait(futures)
        for future in futures:
            future.result()
        if self.stop.is_set():
            raise KeyboardInterrupt

    def _wait(self, futures: Sequence[Future[None]]) -> None:
        """Wait for all workers; when one fails the others stop after the step in flight."""
        left = set(futures)
        while left:
            done, left = wait(left, timeout=0.5, return_when=FIRST_COMPLETED)  # short waits, so that signals are handled
            if any(future.exception() for future in done):
                self.stop.set()

    def _work(
        self,
        turns: Rounds,
        policy: Policy,
        store: RunStore,
        memory: MemoryWatch,
        envs: Slot,
        *,
        course: Course | None,
        rounds: Sequence[Round],
    ) -> None:
        """One worker: sessions one after the other, on one environment."""
        try:
            while (turn := turns.get()) is not None:
                task, experience = turn.task, None
                if course is not None:
                    engine = functools.partial(lesson_engine, self.config, policy)
                    seed = derive_seed(self.config.seed, task.id)
                    experience = course.session(rounds[turn.round], task, store, engine=engine, seed=seed)
                session = Session(
                    task,
                    config=self.config,
                    policy=policy,
                    words=open_words(self.config, policy),
                    envs=envs,
                    store=store.session(task.id),
                    stop=self.stop,
                    memory=memory.peak,
                    experience=experience,
                    judge=open_judge(self.config, policy),
                )
                session.run(self.on_row)
                envs.idle()
                if experience is not None and course is not None and course.adds(rounds[turn.round]):
                    experience.leave(store.session(task.id).rows())
                turns.done()
        except Interrupted:
            return
        finally:
            envs.close()


def env_options(config: RunConfig, policy: Policy) -> dict[str, Any]:
    """Options of the run's environments: the user's, and what the policy asks of them (the expert's follower: an expert)."""
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


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) sets ``stop``; the second one ends the process at once, with its children."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may install handlers
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            _end_now(128 + number)
        stop.set()

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _end_now(code: int) -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    os._exit(code)
