"""The one attempt that is going on: initialise, score, tear down, with upstream's own task code.

An attempt has an id that no other attempt has, of this process or of another: a client whose attempt is not the active one is told
so and never gets a score of another.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from absl import logging as absl_logging
from android_world.task_evals.miniwob import miniwob_base

from guest import tasks
from guest.device import Device
from guest.errors import GuestError

BOOT = secrets.token_hex(4)
"""Id of this server process."""


@dataclass
class Attempt:
    """An initialised task."""

    id: str
    key: tasks.Key
    task: Any


class Attempts:
    """Life cycle of attempts on one phone; to be called by one thread at a time."""

    def __init__(self) -> None:
        self.active: Attempt | None = None
        self._count = 0

    def check(self, attempt_id: str | None) -> None:
        """Refuse a caller that means another attempt.

        Raises:
            GuestError: no_task, stale_attempt.
        """
        active = None if self.active is None else self.active.id
        if attempt_id is not None and attempt_id != active:
            code = "no_task" if active is None else "stale_attempt"
            raise GuestError(code, f"The attempt {attempt_id!r} is not active.", active=active)

    def initialize(self, key: tasks.Key, device: Device) -> dict[str, Any]:
        """Tear down what is active and start an attempt at ``key``.

        Raises:
            GuestError: unknown_family, unknown_task, task_setup_failed.
        """
        started = time.monotonic()
        task = tasks.build(key)
        with _warnings() as warnings:
            try:
                self.tear_down(device)
            except GuestError as error:
                warnings.append(error.message)
            try:
                task.initialize_task(device.env)
                device.reset(home=task.start_on_home_screen)
            except GuestError:
                raise
            except Exception as error:
                with contextlib.suppress(Exception):
                    task.tear_down(device.env)
                raise failure("task_setup_failed", f"{key.task} could not be initialised", error) from error
        self._count += 1
        self.active = Attempt(f"{BOOT}-{self._count}", key, task)
        return {
            **tasks.describe(key, task),
            "attempt": self.active.id,
            "warnings": warnings,
            "seconds": round(time.monotonic() - started, 3),
        }

    def score(self, attempt_id: str, device: Device) -> dict[str, Any]:
        """Upstream's ``is_successful`` of the attempt, from the device's state now.

        Raises:
            GuestError: no_task, stale_attempt, task_score_failed.
        """
        self.check(attempt_id)
        assert self.active is not None
        started = time.monotonic()
        try:
            score = float(self.active.task.is_successful(device.env))
        except Exception as error:
            raise failure("task_score_failed", f"{self.active.key.task} could not be scored", error) from error
        if not (math.isfinite(score) and 0 <= score <= 1):
            raise GuestError("task_score_failed", f"{self.active.key.task} has the score {score!r}, not one from 0 to 1.")
        return {
            "score": score,
            "attempt": self.active.id,
            "answer": device.env.interaction_cache or "",
            "terminated": self.terminated(device),
            "seconds": round(time.monotonic() - started, 3),
        }

    def terminated(self, device: Device) -> bool | None:
        """Whether upstream would end the episode by itself; None for tasks that it never ends."""
        if self.active is None or not isinstance(self.active.task, miniwob_base.MiniWoBTask):
            return None
        return bool(miniwob_base.is_episode_terminated(device.env))

    def tear_down(self, device: Device) -> bool:
        """End the active attempt, if there is one, and say whether there was.

        Raises:
            GuestError: task_teardown_failed; the attempt is still over.
        """
        active, self.active = self.active, None
        if active is None:
            return False
        try:
            active.task.tear_down(device.env)
        except Exception as error:
            raise failure("task_teardown_failed", f"{active.key.task} could not be torn down", error) from error
        return True

    def instance(self) -> dict[str, Any] | None:
        """The active attempt's instance."""
        return None if self.active is None else tasks.describe(self.active.key, self.active.task)


def failure(code: str, what: str, error: Exception) -> GuestError:
    """A failure of upstream's code, with its type and the end of its trace."""
    lines = traceback.format_exception(error)
    return GuestError(
        code, f"{what}: {type(error).__name__}: {error}", exception=type(error).__name__, trace="".join(lines)[-4000:]
    )


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collects what upstream only logs, e.g. that an application's snapshot is missing."""
    messages: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if len(messages) < 20:
                messages.append(record.getMessage()[:500])

    handler = Collect(logging.WARNING)
    loggers = {absl_logging.get_absl_logger(), logging.getLogger()}
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield messages
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
