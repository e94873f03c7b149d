"""Many sessions at a time: threads with an environment each, one shared policy, one run directory."""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from agentlab.disk.files import write_atomic
from agentlab.disk.row import Row
from agentlab.disk.rows import session_over
from agentlab.disk.store import CHANGES_NO_RESULT, GROWS, RunStore
from agentlab.experience.course import Course, Round
from agentlab.run.config import RunConfig
from agentlab.run.identity import Identity
from agentlab.run.memory import MemoryWatch
from agentlab.run.parts import cut_short, env_options, lesson_engine, load_policy_of, open_judge, open_words, plan
from agentlab.run.rounds import Rounds
from agentlab.run.session import Interrupted, Session, derive_seed
from agentlab.run.worker import open_cluster, slots
from envs.base import TaskSpec
from envs.slot import Slot
from envs.suites import locate
from policies.base import Policy

if TYPE_CHECKING:
    from agentlab.cluster.cluster import Cluster


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
            identity = Identity(self.folder, store.rows())
            identity.check_tasks(self.config.suite, self.tasks)
            todo = self._todo(store)
            on_start(store.rows())
            if todo or self.config.experience.dir is not None:  # a round may have ended without having been added
                with self._connected(), self._policy(identity) as policy, self._course(policy, store) as course:
                    write_atomic(self.folder / "policy.json", json.dumps(policy.describe(), indent=2) + "\n")
                    self._run(todo, policy, store, course)
            store.sort([task.id for task in self.tasks])
            return store.rows()
        finally:
            store.close()

    @contextmanager
    def _policy(self, identity: Identity) -> Iterator[Policy]:
        """The run's policy, which is the one that it was begun with."""
        with load_policy_of(self.config) as policy:
            identity.check_policy(policy)
            if line := cut_short(policy, self.config.sampling.max_new_tokens):
                self.say(line)
            yield policy

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

    def _course(self, policy: Policy, store: RunStore) -> AbstractContextManager[Course | None]:
        """The run's experience, closed at the end; None if it has none."""
        config = self.config.experience
        if config.dir is None:
            return nullcontext()
        if config.lessons and config.add:
            lesson_engine(self.config, policy)  # what it lacks is said before the first session
        benchmark = locate(self.config.suite)[0].name
        fresh, judged = not store.rows(), self.config.judged
        return closing(Course(config, self.folder, policy, benchmark, self.say, fresh=fresh, judged=judged))

    def _run(self, todo: Sequence[TaskSpec], policy: Policy, store: RunStore, course: Course | None) -> None:
        rounds = [Round(0, tuple(todo))] if course is None else course.rounds(self.tasks, store)
        unfinished = {task.id for task in todo}
        # Of a round that has not been added, what its ended sessions leave may not be written yet.
        parts = [[task for task in r.tasks if task.id in unfinished or (course and course.adds(r))] for r in rounds]
        turns = Rounds(parts, (lambda n: course.end(rounds[n], store)) if course else (lambda n: None), self.stop)
        most = max(map(len, parts), default=0)
        if not most:
            return
        options = env_options(self.config, policy, self.tasks[0])
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
