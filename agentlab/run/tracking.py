"""The rows of a run, as they come, in an experiment tracker: Weights & Biases, MLflow or TensorBoard, if one is asked for.

None of them is needed.  A tracker is told from a thread of its own: one that fails or hangs is reported once and never harms the run.
"""

from __future__ import annotations

import importlib
import math
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from agentlab.disk.row import Row
from agentlab.disk.store import flatten
from agentlab.run.config import RunConfig
from envs.errors import SetupError

PROJECT = "agentlab"
PATIENCE = 30.0
"""Seconds that a tracker has to finish after the run."""
PARAMETER = 500
"""Characters of a setting's value that every MLflow accepts."""

ATTEMPT_NUMBERS = ("attempt", "score", "success", "reward", "steps", "tokens", "unparsable")
"""Columns of a row that are told as they are."""

Numbers = dict[str, float]


class Backend(Protocol):
    """What a tracker can do; every call may raise anything."""

    def start(self, config: RunConfig) -> None:
        """Begin a run."""

    def log(self, numbers: Numbers, step: int) -> None:
        """Numbers of one attempt; ``step`` counts the attempts of the run."""

    def finish(self, ok: bool) -> None:
        """End it; ``ok``: the run was not interrupted."""


class Wandb:
    """A run of Weights & Biases, its local files in the run directory.

    It is not to look around by itself: the command line and the address of a repository, which it would send, may hold passwords.
    """

    def __init__(self, module: Any) -> None:
        self._wandb = module

    def start(self, config: RunConfig) -> None:
        settings = {"x_disable_meta": True, "disable_git": True, "disable_code": True}
        self._run = self._wandb.init(
            project=PROJECT, name=config.folder.name, dir=str(config.folder), config=config.to_json(), settings=settings
        )

    def log(self, numbers: Numbers, step: int) -> None:
        self._run.log(numbers, step=step)

    def finish(self, ok: bool) -> None:
        self._run.finish(exit_code=0 if ok else 1)


class Mlflow:
    """A run in an experiment of MLflow, where MLFLOW_TRACKING_URI says."""

    def __init__(self, module: Any) -> None:
        self._mlflow = module

    def start(self, config: RunConfig) -> None:
        self._client = self._mlflow.MlflowClient()
        experiment = self._client.get_experiment_by_name(PROJECT)
        where = experiment.experiment_id if experiment is not None else self._client.create_experiment(PROJECT)
        self._run: str = self._client.create_run(where, run_name=config.folder.name).info.run_id
        for name, value in flatten(config.to_json()).items():
            self._client.log_param(self._run, name, str(value)[:PARAMETER])

    def log(self, numbers: Numbers, step: int) -> None:
        for name, value in numbers.items():
            self._client.log_metric(self._run, name, value, step=step)

    def finish(self, ok: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if ok else "KILLED")


class TensorBoard:
    """Event files in ``RUN/tensorboard``."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def start(self, config: RunConfig) -> None:
        self._writer = self._module.SummaryWriter(log_dir=str(config.folder / "tensorboard"))
        lines = (f"    {name}: {value}" for name, value in flatten(config.to_json()).items())
        self._writer.add_text("configuration", "\n".join(lines))

    def log(self, numbers: Numbers, step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, ok: bool) -> None:
        self._writer.close()


BACKENDS: dict[str, tuple[Callable[[Any], Backend], str, str]] = {
    "wandb": (Wandb, "wandb", "'wandb>=0.19'"),
    "mlflow": (Mlflow, "mlflow", "mlflow-skinny"),
    "tensorboard": (TensorBoard, "torch.utils.tensorboard", "tensorboard"),
}
"""Name -> (backend, module to import, distribution to install)."""


def open_backend(name: str) -> Backend:
    """A backend that has not started yet.

    Raises:
        SetupError: it is not installed.
    """
    make, module, distribution = BACKENDS[name]
    try:
        return make(importlib.import_module(module))
    except ImportError as error:
        raise SetupError(f"{name} is not installed ({error}).", f"pip install {distribution}, or leave out --track.") from error


class Tracker:
    """Tells a backend about rows, from a thread of its own.

    Args:
        backend: Not started.
        config: Of the run.
        planned: Sessions of the run; where all are over there is nothing to tell.
        warn: Gets a line if the backend fails; the run goes on without it.
    """

    def __init__(self, backend: Backend, config: RunConfig, planned: int, warn: Callable[[str], None]) -> None:
        self._backend, self._config, self._planned, self._warn = backend, config, planned, warn
        self._tally = Tally(config.attempts)
        self._rows: queue.SimpleQueue[Row | bool] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()
        self._warned = False

    def start(self, rows: Sequence[Row]) -> None:
        """The run directory is open; ``rows`` are in it already.

        Raises:
            SetupError: the tracker cannot start.
        """
        for row in rows:
            self._tally.add(row)
        if self._tally.ended >= self._planned:
            return
        try:
            self._backend.start(self._config)
        except Exception as error:
            raise SetupError(f"{self._config.track} cannot start: {error}", "Mend it, or leave out --track.") from error
        self._thread = threading.Thread(target=self._tell, name="tracker", daemon=True)
        self._thread.start()

    def row(self, row: Row) -> None:
        """One more attempt is on disk.  Never waits, never raises."""
        self._rows.put(row)

    def finish(self, ok: bool) -> None:
        """Tell what is left, and wait for it within bounds."""
        if self._thread is None:
            return
        self._rows.put(ok)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._fail(f"it has not finished within {PATIENCE:.0f} s")

    def _tell(self) -> None:
        try:
            while not isinstance(row := self._rows.get(), bool):
                self._backend.log(self._tally.add(row), self._tally.attempts)
            self._backend.finish(row)
        except Exception as error:  # noqa: BLE001 - whatever a tracker does, the run goes on
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, why: str) -> None:
        with self._guard:
            if not self._warned:
                self._warned = True
                self._warn(f"{self._config.track} failed and is told nothing more; the run is not affected ({why}).")


class Tally:
    """The running totals of a run, row by row: those of :func:`agentlab.results.metrics.summarize`."""

    def __init__(self, attempts: int) -> None:
        self.attempts = self.ended = 0
        self._solved_at = [0] * attempts
        self._broken = 0

    def add(self, row: Row) -> Numbers:
        """Count a row and give everything there is to say after it."""
        self.attempts += 1
        self._broken += len(row.infrastructure)
        if row.session_over:
            self.ended += 1
            if row.success and row.attempt <= len(self._solved_at):
                self._solved_at[row.attempt - 1] += 1
        return _numbers(row) | self._totals()

    def _totals(self) -> Numbers:
        found: Numbers = {"run/sessions": self.ended, "run/machinery_failures": self._broken}
        solved = 0
        for k, count in enumerate(self._solved_at, start=1):
            solved += count
            if self.ended:
                found[f"run/success_at_{k}"] = solved / self.ended
        return found


def _numbers(row: Row) -> Numbers:
    parts: dict[str, Iterable[tuple[str, Any]]] = {
        "attempt": [(name, getattr(row, name)) for name in ATTEMPT_NUMBERS],
        "seconds": row.seconds.parts().items(),
        "memory": row.memory.items(),
        "update": row.update.model_dump().items() if row.update is not None else (),
        "words": row.words.model_dump().items() if row.words is not None else (),
    }
    return {f"{part}/{name}": float(v) for part, items in parts.items() for name, v in items if _is_finite(v)}


def _is_finite(value: Any) -> bool:
    return isinstance(value, bool | int | float) and math.isfinite(value)


class Nobody:
    """Stands in for a tracker when none was asked for."""

    def start(self, rows: Sequence[Row]) -> None:
        """Nothing to do."""

    def row(self, row: Row) -> None:
        """Nothing to do."""


@contextmanager
def tracking(config: RunConfig, planned: int, warn: Callable[[str], None]) -> Iterator[Tracker | Nobody]:
    """The tracker that the configuration asks for.

    Raises:
        SetupError: it is not installed.
    """
    if config.track is None:
        yield Nobody()
        return
    tracker = Tracker(open_backend(config.track), config, planned, warn)
    try:
        yield tracker
    except BaseException:
        tracker.finish(False)
        raise
    tracker.finish(True)


def both(*calls: Callable[[Any], None]) -> Callable[[Any], None]:
    """One callback that makes several calls."""

    def call(what: Any) -> None:
        for one in calls:
            one(what)

    return call
