"""Many methods on the same failing first attempts, in one process: one backbone, one browser, every batch full.

Attempt 1 is greedy, made once per instance, and recorded with what the head received (``capture.safetensors``).  Each method then
*continues* from that very attempt: nobody makes it again, so nobody can be lucky at it.  Sessions of all methods share one queue,
instance by instance, so that whatever is finished when time is up is paired.
"""

from __future__ import annotations

import os
import queue
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from meter import Meter, console
from safetensors.torch import load_file, save_file

from agentlab.disk.record import AttemptWriter, load_trace
from agentlab.disk.row import Row
from agentlab.disk.rows import Played, session_over
from agentlab.disk.store import CHANGES_NO_RESULT, GROWS, RunStore, SessionStore
from agentlab.run.config import RunConfig
from agentlab.run.parts import load_policy_of, open_words, prepare
from agentlab.run.runner import stop_on_signals
from agentlab.run.session import History, Interrupted, Session
from envs.base import Observation, TaskSpec
from envs.errors import LabError, StoreError, UsageError
from envs.slot import EnvSlot
from policies.base import Decision, PastAttempt, Policy, PolicySession
from policies.causal.policy import CausalPolicy
from policies.families.policy import ModelPolicy, ModelSession
from policies.learned import LearnedSession
from policies.sampling import SamplingConfig
from retrospect.trace import Trace

CAPTURE = "capture.safetensors"


# -- sessions ----------------------------------------------------------------------------------------------------------------------
class FirstSession(Session):
    """One greedy attempt, recorded together with H and y of its replies."""

    def _episode(self, theta: PolicySession, t: int, x: str, h: History, writer: AttemptWriter) -> Played:
        played = super()._episode(theta, t, x, h, writer)
        save_capture(theta, writer.folder)
        theta.discard()
        return played


class ContinuedSession(Session):
    """A session whose attempt 1 is a recorded one, folder ``first``."""

    first: Path

    def _episode(self, theta: PolicySession, t: int, x: str, h: History, writer: AttemptWriter) -> Played:
        if t > 1:
            return super()._episode(theta, t, x, h, writer)
        started = time.perf_counter()
        trace = load_trace(self.first)
        if "screenshot" not in trace.steps[0].observation:
            return self._again(theta, trace, x, h, writer)
        shutil.copy2(self.first / "events.jsonl", writer.folder)
        shutil.copytree(self.first / "screens", writer.folder / "screens", copy_function=os.link)
        theta.begin(trace.instruction, attempt=1)
        theta.recall([(step.observation, step.actions) for step in trace.steps])
        theta.recall_replies([(step.observation, step.text) for step in trace.steps])
        if self.config.adapt.axes(1)[1]:
            resume(theta, self.first)
        else:
            theta.discard()  # it is not acting: no batch has to wait for it
        return Played(trace, started, guidance=x)

    def _again(self, theta: PolicySession, recorded: Trace, x: str, h: History, writer: AttemptWriter) -> Played:
        """The recorded replies given again in this method's own environment, which costs nothing in text: what the user says to them
        is a setting of the environment.
        """
        played = super()._episode(Replaying(theta, recorded), 1, x, h, writer)
        if played.trace.score != recorded.score:
            raise StoreError(f"{self.first}: the score of the recorded replies is not {recorded.score} any more.")
        theta.recall([(step.observation, step.actions) for step in recorded.steps])
        theta.recall_replies([(step.observation, step.text) for step in recorded.steps])
        if self.config.adapt.axes(1)[1]:
            resume(theta, self.first)
        else:
            theta.discard()
        return played


class Replaying(PolicySession):
    """Gives the replies of a recorded attempt; begins and ends what stands behind it."""

    def __init__(self, behind: PolicySession, recorded: Trace) -> None:
        self._behind, self._steps = behind, iter(recorded.steps)

    def converse(self, history: Sequence[PastAttempt]) -> None:
        self._behind.converse(history)

    def begin(self, instruction: str, *, guidance: str = "", attempt: int = 1) -> None:
        self._behind.begin(instruction, guidance=guidance, attempt=attempt)

    def act(self, observation: Observation) -> Decision:
        step = next(self._steps)
        return Decision(step.text, step.actions, step.thought, step.action_text, tokens=step.tokens)


class TransferSession(Session):
    """One greedy attempt under what was learned, by one update, from the failed attempt ``first`` at another instance."""

    first: Path

    def _restore(self, made: list[Row]) -> tuple[PolicySession, list[Row], str, History]:
        theta, made, x, h = super()._restore(made)
        if not made:
            trace = load_trace(self.first)
            theta.begin(trace.instruction, attempt=1)
            resume(theta, self.first)
            theta.adapt([-1.0] * len(trace.steps))
        return theta, made, x, h


def save_capture(theta: PolicySession, folder: Path) -> None:
    """Write H and y of the attempt just made."""
    assert isinstance(theta, ModelSession | LearnedSession) and theta.learner is not None
    tensors = {}
    for number, (hidden, tokens) in enumerate(theta.captured() if isinstance(theta, LearnedSession) else theta.learner.capture()):
        tensors |= {f"{number:03d}.hidden": hidden.cpu().contiguous(), f"{number:03d}.tokens": tokens}
    save_file(tensors, folder / CAPTURE)


def resume(theta: PolicySession, first: Path) -> None:
    """Put ``theta`` where it would be had it just made the attempt recorded in ``first``."""
    assert isinstance(theta, ModelSession | LearnedSession)
    tensors = load_file(first / CAPTURE)
    capture = [(tensors[f"{n:03d}.hidden"], tensors[f"{n:03d}.tokens"]) for n in range(len(tensors) // 2)]
    theta.resume([(step.observation, step.text) for step in load_trace(first).steps], capture)


# -- jobs --------------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Job:
    """One session.

    Attributes:
        kind: Which of the sessions above.
        config: Of its run; ``config.folder`` is where it is kept.
        task: The instance.
        group: Jobs of one group are finished together, see :meth:`Pool.run`.
        first: Folder of the recorded first attempt, for those that continue one.
    """

    kind: type[Session]
    config: RunConfig
    task: TaskSpec
    group: int = 0
    first: Path | None = None


class Pool:
    """Runs jobs on ``workers`` environments and one backbone; a context manager.

    Args:
        config: Any configuration with the policy of all jobs.
        threads: Of the model's arithmetic.
        workers: Sessions in flight.  The model's time per batch hardly grows with its rows, so more than there are cores.
    """

    def __init__(self, config: RunConfig, workers: int, threads: int = 1) -> None:
        self._config, self.workers, self._threads = config, workers, threads
        self._policies: dict[SamplingConfig, Policy] = {}
        self._stores: dict[Path, RunStore] = {}
        self._guard = threading.Lock()
        self._exit = ExitStack()
        self.stop = threading.Event()

    def __enter__(self) -> Pool:
        torch.set_num_threads(self._threads)
        prepare(self._config, console.print)
        self._policy = self._exit.enter_context(load_policy_of(self._config))
        if not isinstance(self._policy, ModelPolicy | CausalPolicy):
            self._exit.close()
            raise UsageError(f"The policy {self._config.policy!r} has no weights here.", "Benchmarks need a checkpoint.")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for store in self._stores.values():
            store.close()
        self._exit.close()

    def store(self, config: RunConfig) -> RunStore:
        """The run directory of a configuration, opened once."""
        with self._guard:
            if config.folder not in self._stores:
                self._stores[config.folder] = RunStore.open(
                    config.folder, config.to_json(), free=CHANGES_NO_RESULT, grows=GROWS, implied=config.at_default()
                )
            return self._stores[config.folder]

    def session(self, config: RunConfig, task: TaskSpec) -> SessionStore:
        return self.store(config).session(task.id)

    def _policy_for(self, sampling: SamplingConfig) -> Policy:
        """The backbone, drawn from as ``sampling`` says."""
        p = self._policy
        with self._guard:
            if sampling not in self._policies:
                if isinstance(p, CausalPolicy):
                    self._policies[sampling] = CausalPolicy(p.name, p.engine, p.settings, sampling)
                else:
                    assert isinstance(p, ModelPolicy)
                    self._policies[sampling] = ModelPolicy(p.name, p.engine, p.family, p.settings, sampling, p.platform)
            return self._policies[sampling]

    def run(self, title: str, jobs: Sequence[Job], *, deadline: float | None = None, keep: bool = False) -> None:
        """Run what is not on disk yet.

        Args:
            title: For the progress line.
            jobs: In this order; the jobs of a group stand together.
            deadline: ``time.monotonic()`` after which no further group is begun (begun ones are finished).
            keep: Leave screens, adapters and captures of finished sessions on disk; otherwise only ``result.json`` files stay.

        Raises:
            KeyboardInterrupt: stopped by Ctrl-C; the same command continues.
            LabError: the jobs cannot go on.
        """
        todo = [job for job in jobs if not session_over(self.session(job.config, job.task).rows())]
        pending = _Queue(todo, deadline)
        with Meter(title, len(jobs), len(jobs) - len(todo)) as meter, stop_on_signals(self.stop):
            with ThreadPoolExecutor(max(1, min(self.workers, len(todo))), "worker") as threads:
                futures = [threads.submit(self._work, pending, meter, keep) for _ in range(min(self.workers, len(todo)))]
                while any(not f.done() for f in futures):  # short waits, so that signals are handled
                    done, _ = wait(futures, timeout=0.5)
                    if any(f.exception() for f in done):
                        self.stop.set()
            for future in futures:
                future.result()
        if self.stop.is_set():
            raise KeyboardInterrupt

    def _work(self, pending: _Queue, meter: Meter, keep: bool) -> None:
        envs, options = EnvSlot(self._config.env), self._config.env
        try:
            while not self.stop.is_set() and (job := pending.get()) is not None:
                if job.config.env != options:
                    envs.close()
                    envs, options = EnvSlot(job.config.env), job.config.env
                self._one(job, envs, meter)
                if not keep:
                    slim(self.session(job.config, job.task).folder)
                meter.done()
        except Interrupted:
            return
        finally:
            envs.close()

    def _one(self, job: Job, envs: EnvSlot, meter: Meter) -> None:
        policy = self._policy_for(job.config.sampling)
        session = job.kind(
            job.task,
            config=job.config,
            policy=policy,
            words=open_words(job.config, policy),
            envs=envs,
            store=self.session(job.config, job.task),
            stop=self.stop,
            memory=dict,
        )
        if isinstance(session, ContinuedSession | TransferSession):
            assert job.first is not None
            session.first = job.first
        session.run(meter.row)


class _Queue:
    """Jobs in order; once the deadline has passed, only those of groups that have been begun."""

    def __init__(self, jobs: Sequence[Job], deadline: float | None) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            self._jobs.put(job)
        self._deadline, self._begun, self._guard = deadline, set[int](), threading.Lock()

    def get(self) -> Job | None:
        with self._guard:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return None
            if job.group not in self._begun and self._deadline is not None and time.monotonic() > self._deadline:
                self._jobs = queue.SimpleQueue()
                return None
            self._begun.add(job.group)
            return job


def slim(folder: Path) -> None:
    """Of a finished session, leave the rows only: screens and adapters of thousands of sessions take gigabytes."""
    for path in folder.glob("attempt_*/*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "result.json":
            path.unlink()


@contextmanager
def reported() -> Iterator[None]:
    """Errors meant for a person are printed as one, and the exit code says so."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("Stopped. The same command continues.")
        raise SystemExit(130) from None
    except LabError as error:
        console.print(f"[bold red]error:[/bold red] {error.message}\n{error.hint}", highlight=False)
        raise SystemExit(error.exit_code) from None
