"""Every error this project raises on purpose, one class per boundary.

The command line prints ``message`` and ``hint`` without a traceback and exits with ``exit_code``.  The split that matters
most is :class:`InfrastructureError` against everything else: a failure of the machinery is retried and reported, it is never
a reward and nothing is ever adapted on it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from envs.redaction import redact


class LabError(Exception):
    """Base of all errors meant for a person: what happened, and what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        message = redact(message)  # it may quote what an endpoint or a user said: printed, and written into the results
        super().__init__(message)
        self.message = message
        self.hint = redact(hint)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(LabError):
    """The user asked for something that does not exist or cannot be (unknown name, bad value, foreign directory)."""

    exit_code = 2


class SetupError(LabError):
    """Something the machine needs is missing (browser, Docker, GPU, weights); the hint is the command that mends it."""

    exit_code = 3


class StoreError(LabError):
    """A run directory cannot be read, written or continued."""

    exit_code = 4


class PolicyError(LabError):
    """A policy cannot be loaded or cannot answer (no such model, endpoint refused, out of memory)."""

    exit_code = 5


class AdaptationError(LabError):
    """An update of words or weights could not be computed (NaN/Inf, empty trace); the policy is left as it was."""

    exit_code = 6


class InvalidActionError(LabError):
    """Model text is not an action of the vocabulary, or the environment has no such action.  Costs the agent one step."""


class InfrastructureError(LabError):
    """The machinery failed (browser, container, guest, grader, endpoint): retried within bounds, never a reward."""

    exit_code = 7

    def __init__(self, message: str, hint: str = "", *, component: str = "unknown") -> None:
        super().__init__(message, hint)
        self.component = component


LISTED_BY = {
    "setting": "agentlab settings",
    "suite": "agentlab benchmarks",
    "benchmark": "agentlab benchmarks",
    "task": "agentlab tasks SUITE",
}
"""The command that lists all names of a kind."""
SHOWN = 12
"""Names that a hint lists itself."""


def did_you_mean(name: str, known: Iterable[str], *, what: str) -> str:
    """A hint naming the nearest known names, or all of them when there are few."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(repr(n) for n in near)}?"
    if len(names) <= SHOWN:
        return f"Known: {', '.join(names)}."
    if what in LISTED_BY:
        return f"There are {len(names)} {what}s; list them with `{LISTED_BY[what]}`."
    return f"Known: {', '.join(names[:SHOWN])}, and {len(names) - SHOWN} more."
