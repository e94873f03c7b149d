"""What a verb is pointed at: a run, a session of it, or an attempt; and what may be taken from a run that may be somebody else's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from agentlab.disk.files import ATTEMPT
from agentlab.disk.runs import Attempt, Run, attempt_folders, find_session, read_attempt, read_run, session_folders
from agentlab.run.config import RunConfig
from agentlab.run.resolve import merge, parse_set
from envs.errors import StoreError, UsageError
from envs.plugins import only_named
from envs.suites import NAMED_MODULE, benchmark_names


@dataclass(frozen=True)
class Selection:
    """A run, one session of it, or one attempt."""

    run: Run
    session: Path | None = None
    attempt: int | None = None

    def sessions(self) -> list[Path]:
        """Folders of the sessions meant."""
        return [self.session] if self.session else session_folders(self.run.folder)

    def count(self) -> int:
        """How many attempts are meant."""
        return sum(1 for session in self.sessions() for folder in attempt_folders(session) if self._means(folder))

    def _means(self, folder: Path) -> bool:
        number = ATTEMPT.search(folder.name)
        return self.attempt is None or (number is not None and int(number[1]) == self.attempt)

    def attempts(self) -> Iterator[tuple[str, Attempt]]:
        """(session, attempt) of every attempt meant."""
        for session in self.sessions():
            for folder in attempt_folders(session):
                if self._means(folder):
                    yield session.name, read_attempt(folder)


def find_target(path: Path) -> Selection:
    """``RUN``, ``RUN/TASK`` or ``RUN/TASK/ATTEMPT`` (also as the folders are called: ``RUN/sessions/TASK/attempt_01``).

    A task's id may have a ``/`` in it.

    Raises:
        StoreError, UsageError: no such run, session or attempt.
    """
    folder = next((p for p in (path, *path.parents)[:4] if (p / "config.json").is_file()), path)
    run = read_run(folder)
    parts = list(path.parts[len(folder.parts) :])
    if parts[:1] == ["sessions"]:
        parts = parts[1:]
    if not parts:
        return Selection(run)
    with contextlib.suppress(UsageError):
        return Selection(run, find_session(folder, "/".join(parts)))
    last = ATTEMPT.fullmatch(parts[-1])
    number = last[1] if last else parts[-1]
    if len(parts) == 1 or not number.isdecimal() or len(number) > 6:
        find_session(folder, "/".join(parts))
    session = find_session(folder, "/".join(parts[:-1]))
    there = [int(m[1]) for p in attempt_folders(session) if (m := ATTEMPT.search(p.name))]
    if int(number) not in there:
        raise UsageError(f"{session} has no attempt {number}.", f"It has {', '.join(map(str, there)) or 'none'}.")
    return Selection(run, session, int(number))


def configuration(run: Run) -> RunConfig:
    """The settings of the run that a replay needs, as this version understands them: who acted and what was learned are left out.

    Raises:
        UsageError: the run was not made here.
        StoreError: its settings are those of another version.
    """
    refuse_imported(run)
    needed = {name: value for name, value in run.config.items() if name not in {"adapt", "model"}} | {"policy": "noop"}
    try:
        with only_named():
            return RunConfig.model_validate(needed)
    except ValidationError as error:
        raise StoreError(f"The settings of {run.folder} are not of this version: {error.errors()[0]['msg']}.") from error


def refuse_imported(run: Run) -> None:
    """Raises UsageError if the run was not made here: its actions and weights are another program's."""
    if run.imported:
        raise UsageError(
            f"{run.folder} was imported from {run.imported}.", "It can be viewed, reported and compared, not replayed."
        )


def safe_options(
    recorded: Mapping[str, Any],
    given: Mapping[str, Any],
    choices: Mapping[str, Sequence[str]] = MappingProxyType({}),
    withheld: Sequence[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """Environment options for a replay, and the names of the recorded ones that were left out.

    A run directory may come from a stranger: its switches and numbers are taken over, and words that are among the ``choices`` of an
    option; other texts (a browser's path, an image, an address) and what is ``withheld`` only if the user gives them.
    """

    def harmless(key: str, value: Any) -> bool:
        if key in withheld:
            return False
        numbers = value if isinstance(value, list) else [value]
        return all(isinstance(v, bool | int | float) for v in numbers) or (isinstance(value, str) and value in choices.get(key, ()))

    taken = {key: value for key, value in recorded.items() if value is None or harmless(key, value)}
    return taken | dict(given), sorted(recorded.keys() - taken.keys() - given.keys())


def names_code(suite: str) -> bool:
    """Whether the suite is a ``module:Name``, and not one of an installed benchmark."""
    return NAMED_MODULE.fullmatch(suite) is not None and suite.partition(":")[0] not in benchmark_names()


def with_suite(config: RunConfig, given: str | None) -> RunConfig:
    """The settings, with the task files that the user vouches for.

    Raises:
        UsageError: the run's tasks are files, and none are given; or it is the other way round.
    """
    if names_code(config.suite):
        if given != config.suite:
            raise UsageError(
                f"The tasks of this run are those of {config.suite}, which is code.",
                f"If you trust it, say --suite {config.suite}.",
            )
        return config
    benchmark, _, files = config.suite.partition(":")
    if files and given is None:
        raise UsageError(
            f"The tasks of this run are files: {files}.",
            "They say what is set up, what is asked and how it is graded. If you trust them, say --suite PATH.",
        )
    if given is not None and not files:
        raise UsageError(f"This run is of the suite {config.suite!r}, which has its tasks.", "Leave out --suite.")
    return config.model_copy(update={"suite": f"{benchmark}:{given}"}) if given is not None else config


def env_options(sets: Sequence[str]) -> dict[str, Any]:
    """``env.key=value`` texts as options of an environment.

    Raises:
        UsageError: another setting.
    """
    settings = merge({}, *(parse_set(text) for text in sets))
    if settings.keys() - {"env"}:
        raise UsageError("Only env.KEY=VALUE can be set here.", "The rest is as it was recorded.")
    return dict(settings.get("env", {}))
