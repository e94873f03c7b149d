"""What a benchmark is to the rest of the house: one object that answers everything that is asked before, around and after its runs.

A benchmark of your own is a subclass of :class:`Benchmark` that has a name, an environment and a suite; everything else has a default::

    class Guess(Benchmark):
        name = "guess"
        summary = "Guess a number between 1 and 100."
        environment = GuessEnv  # a subclass of envs.base.TaskEnv, or "module:Class"

        def suite(self, part=""):
            return GuessSuite()  # a subclass of envs.base.TaskSuite

It runs as ``agentlab run my.module:Guess``, or by its name once a package offers it as an entry point::

    [project.entry-points."agentlab.benchmarks"]
    guess = "my.module:Guess"
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from envs.base import TaskSpec, TaskSuite
    from envs.containers import Container
    from envs.errors import SetupError

Say = Callable[[str], None]
"""Gets a line for a person."""

OnBytes = Callable[[int], None]
"""Gets the number of bytes that have come in since the last call; negative when a file has to be started over."""


def nothing(_: int) -> None:
    """No progress is shown."""


@dataclass(frozen=True)
class Watcher:
    """Who is told how a long job goes.

    Attributes:
        say: Gets a line per part.
        begin: Gets what is under way and its size in bytes (None if unknown), and returns what then gets the bytes that came in.
    """

    say: Say = lambda line: None
    begin: Callable[[str, int | None], OnBytes] = lambda what, size: nothing


@dataclass(frozen=True)
class Check:
    """Something that a benchmark wants of a machine; ``agentlab doctor`` shows a line for it.

    Attributes:
        what: E.g. ``browser``.  What several benchmarks want by the same name is looked for once.
        probe: Returns what was found, or raises a :class:`~envs.errors.LabError` that says why it is not there.
        mend: The command that brings it; empty: the hint of what ``probe`` raised.
        needed: Whether nothing works without it.
    """

    what: str
    probe: Callable[[], str]
    mend: str = ""
    needed: bool = False


@dataclass(frozen=True)
class Workload:
    """What a run is going to do, for an estimate of what it takes.

    Attributes:
        sessions: Task instances.
        attempts: Attempts per task, at most.
        steps: Replies per attempt, at most.
        workers: Sessions at a time.
        model_seconds: Of the model in one attempt: replies, and what is learned from them.
        most_model_seconds: The same where every reply has to be drawn again as often as it may be.
        one_model: Whether one model on this machine answers all sessions, one after the other.
        retries: How often an attempt that the machinery broke is retried, at most.
    """

    sessions: int
    attempts: int
    steps: int
    workers: int
    model_seconds: float = 0.0
    most_model_seconds: float = 0.0
    one_model: bool = False
    retries: int = 0

    def hours(self, environment_seconds: float) -> tuple[float, float]:
        """Hours of the whole run, given an attempt's seconds in its environment: if nothing has to be retried, and at most.

        Environments run beside each other, ``workers`` at a time.  One model does not: a run is never faster than its model.
        """
        made = self.sessions * self.attempts
        usual, most = (
            max((environment_seconds + model) / min(self.workers, max(self.sessions, 1)), model if self.one_model else 0.0)
            for model in (self.model_seconds, self.most_model_seconds)
        )
        return made * usual / 3600, made * (1 + self.retries) * most / 3600


@runtime_checkable
class Interruptible(Protocol):
    """What the environments of a run share and may wait for long: machines that boot."""

    def interrupt(self) -> None:
        """The run is to stop: nobody waits any more, and what is in use goes on until it is closed.  Any thread may call it, twice too."""


def interrupt(shared: Mapping[str, Any]) -> None:
    """The run is to stop: interrupt what is :class:`Interruptible` of what its environments share."""
    for part in shared.values():
        if isinstance(part, Interruptible):
            part.interrupt()


class Benchmark(abc.ABC):
    """One benchmark.  ``part`` is always the part of it that is run: "" for the whole, one of ``parts``, or a path.

    Attributes:
        name: What it is called on the command line, ``[a-z0-9_-]``.  A run of its part ``hard`` is of the suite ``NAME-hard``.
        summary: One line for ``agentlab benchmarks``.
        environment: The environment's class, or ``module:Class`` so that nothing heavy is imported before it is needed.
        parts: Part -> one line about it.
        takes_files: Whether the user's own tasks can be run as ``NAME:PATH``; ``part`` is the path then.
        place: What one environment takes one of on the machine that it is made on, e.g. ``desktops``: a resource of a cluster's nodes.
            "" for one that takes nothing worth counting.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    environment: ClassVar[str | type[Any]]
    parts: ClassVar[Mapping[str, str]] = {}
    takes_files: ClassVar[bool] = False
    place: ClassVar[str] = ""

    @property
    def env_id(self) -> str:
        """The Gymnasium id under which the environment is registered; a task's ``env_id``."""
        return f"agentlab/{self.name}-v0"

    # -- tasks and settings ----------------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def suite(self, part: str = "") -> TaskSuite:
        """The tasks.  Called often: what is slow to find belongs into the suite's methods.

        Raises:
            SetupError: (from what lists tasks) they are not on this machine yet.
            UsageError: the user's files are not tasks.
        """

    def default_options(self, part: str) -> dict[str, Any]:
        """Options of the environment if the user does not say otherwise."""
        return {}

    def judged(self, options: Mapping[str, Any]) -> bool:
        """Whether a judge alone says when a session ends and what is learned, and the grader only keeps score; such a benchmark's
        environments have a ``reference`` and an ``objection``.
        """
        return False

    def default_workers(self, options: Mapping[str, Any]) -> int | None:
        """How many sessions to run at a time if the user does not say; None where the machine's cores decide.

        Raises:
            UsageError: a bad value among the options.
        """
        return None

    # -- before a run ----------------------------------------------------------------------------------------------------------
    def prepare(self, options: Mapping[str, Any], say: Say) -> None:
        """Bring what a run can bring by itself, each announced through ``say``.

        Raises:
            SetupError: it is unavailable.
        """

    def downloads(self, options: Mapping[str, Any]) -> Iterator[str]:
        """What :meth:`prepare` would bring, for ``--dry-run``."""
        yield from ()

    def lacking(self, part: str, options: Mapping[str, Any]) -> Iterator[SetupError]:
        """What this machine lacks for a run, each with the command that brings it as its hint.

        Raises:
            UsageError: a bad value among the options.
        """
        yield from ()

    def remarks(self, options: Mapping[str, Any], tasks: Sequence[TaskSpec]) -> Iterator[str]:
        """What a person should know before these tasks are run."""
        yield from ()

    def estimates(self, part: str, options: Mapping[str, Any], work: Workload) -> Iterator[str]:
        """Disk, memory and time that a run takes, as lines for ``--dry-run``."""
        yield from ()

    # -- during a run ----------------------------------------------------------------------------------------------------------
    def shared(self, options: dict[str, Any], run: str, workers: int) -> AbstractContextManager[dict[str, Any]]:
        """What the environments of a run share (containers, emulators), open for the whole run; gives the environments' options.

        An environment that is closed because its machine broke must not take the others' machines with it.  What is shared and is
        :class:`Interruptible` is told when the run is to stop.

        Args:
            options: Of the environment, as the user and :meth:`default_options` give them.
            run: The run's name, for labels.
            workers: How many environments there will be at a time.

        Raises:
            SetupError, UsageError: (on entering) it is unavailable.
        """
        return nullcontext(options)

    # -- on the nodes of a cluster ---------------------------------------------------------------------------------------------
    def places(self) -> int:
        """How many environments this machine has room for at a time, each of which takes one :attr:`place`.

        Raises:
            SetupError: none, as it lacks something.
        """
        return 0

    def unspreadable(self, options: Mapping[str, Any]) -> str:
        """Why environments with these options cannot be made on the nodes of a cluster, as a sentence; "" where they can."""
        return ""

    def traits(self, options: Mapping[str, Any]) -> Mapping[str, str]:
        """What of this machine a result may depend on, e.g. which browser; nodes that differ in it are reported."""
        return {}

    # -- this machine ----------------------------------------------------------------------------------------------------------
    def checks(self) -> Iterator[Check]:
        """What ``agentlab doctor`` looks for."""
        yield from ()

    setup: ClassVar[Callable[..., None] | None] = None
    """``setup(self, say)`` installs what the benchmark needs (``agentlab setup NAME``); its docstring is the help.

    Raises SetupError where it fails."""

    fetch: ClassVar[Callable[..., None] | None] = None
    """``fetch(self, watch, *, ...)`` brings what the benchmark needs from the internet (``agentlab fetch NAME``); ``watch`` is a
    :class:`Watcher`, the further parameters become options as ``typer`` reads them, and the docstring is the help.

    Raises SetupError where something is unavailable; the same command continues."""

    importer: ClassVar[Callable[..., Any] | str | None] = None
    """``importer(results, folder, *, ...)`` makes a run in ``folder`` of the results that the benchmark's own scripts wrote
    (``agentlab import NAME``), or ``module:function``: it is a function of the application, imported when it is asked for.  It returns
    an :class:`agentlab.exchange.imported.Imported`; its further parameters become options as ``typer`` reads them, and the first
    paragraph of its docstring is the help.

    Raises UsageError where there are no such results, StoreError where ``folder`` cannot be written."""

    build: ClassVar[Callable[..., str] | None] = None
    """``build(self, say) -> tag`` builds the image of the benchmark's machines (``agentlab containers build NAME``)."""

    start: ClassVar[Callable[..., Sequence[Container]] | None] = None
    """``start(self, count, *, run, ttl, options) -> containers`` starts machines that outlive this process (``agentlab containers up
    NAME``); ``ttl`` is in seconds, and ``options`` are those of :attr:`environment` that say what is started.

    Raises UsageError for an option that says nothing about a machine."""

    def address(self, container: Container) -> str:
        """The value of ``--provider`` that uses a container of :attr:`start`, with what else a person may want to know of it."""
        return container.name
