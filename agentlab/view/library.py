"""What the viewer shows, as plain data: the runs, one run, one session, one screen.  Served live and exported from here alike.

Everything is read leniently (see :mod:`agentlab.disk.runs`), and everything that leaves is of a known type: texts, finite numbers,
actions of the vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from agentlab.disk.files import inside, read_json
from agentlab.disk.given import read_given
from agentlab.disk.names import digest, slug
from agentlab.disk.runs import attempt_folders, find_session, read_attempt, screen_path
from agentlab.exchange.plain import Data, attempt_data, number, plain, shifts, text
from agentlab.view.catalog import Catalog
from envs.errors import LabError, StoreError, UsageError
from envs.numerals import whole


class Library:
    """The runs below some folders, looked at again on every call; results are remembered while their files do not change.

    Args:
        paths: Run directories, or folders of run directories.

    Raises:
        UsageError: one of them is not a folder.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        for path in paths:
            if not path.is_dir():
                raise UsageError(f"{path} is not a folder.", "Give run directories, or a folder of them.")
        self.paths = list(paths)
        self._guard = threading.Lock()
        self._catalogs: dict[Path, Catalog] = {}
        self._again: dict[Path, tuple[tuple[int, int], dict[tuple[str, int], Data]]] = {}

    def runs(self) -> dict[str, Path]:
        """Run folders by id."""
        found: dict[str, Path] = {}
        for path in self.paths:
            folders = [path] if (path / "config.json").is_file() else sorted(p.parent for p in path.glob("*/config.json"))
            for folder in folders:
                real = folder.resolve()
                found[f"{slug(real.name)}-{digest(str(real))[:6]}"] = real
        return found

    def index(self) -> Data:
        """All runs: title, sessions, how many have ended and been solved; ``problem`` where one cannot be read."""
        lines = []
        for key, folder in self.runs().items():
            try:
                counts, problem = self._catalog(folder).counts(), ""
            except LabError as error:
                counts, problem = {"title": folder.name, "sessions": 0, "ended": 0, "solved": 0}, str(error)
            lines.append({"id": key, "name": folder.name, **counts, "problem": problem})
        return {"runs": lines}

    def run(self, key: str, since: str = "") -> Data:
        """One run: its settings, its final table so far and its sessions; of these only what has changed ``since`` that version.

        Raises:
            UsageError, StoreError: no such run, or it cannot be read.
        """
        return {"id": key, **self._catalog(self._folder(key)).sessions(since)}

    def session(self, key: str, name: str) -> Data:
        """One session: its attempts, step by step.

        Raises:
            UsageError, StoreError: there is no such session.
        """
        run = self._folder(key)
        folder = find_session(run, name)
        attempts = [attempt_data(read_attempt(path)) for path in attempt_folders(folder)]
        for attempt in attempts:
            _add_rescored(attempt, self._rescored(run).get((folder.name, attempt["number"]), {}))
        return {"name": folder.name, "attempts": attempts, "given": _given(folder)}

    def screen(self, key: str, name: str, attempt: str, screen: str) -> Path:
        """The file of a screen.

        Raises:
            UsageError, StoreError: there is no such screen, or it lies outside its attempt.
        """
        folder = find_session(self._folder(key), name)
        wanted = whole(attempt)
        if wanted is None:
            raise UsageError(f"{attempt!r} is not the number of an attempt.")
        return screen_path(inside(folder / f"attempt_{wanted:02d}", folder), f"screens/{screen}")

    def _rescored(self, run: Path) -> dict[tuple[str, int], Data]:
        """What `agentlab rescore` wrote last, by session and attempt; nothing if it wrote nothing, or nothing that can be read."""
        try:
            path = inside(run / "rescore/rescore.json", run)
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if self._again.get(run, (None, {}))[0] != stamp:
                lines = read_json(path).get("attempts")
                found = [r for r in lines if isinstance(r, dict)] if isinstance(lines, list) else []
                self._again[run] = (stamp, {(text(r.get("session")), int(number(r.get("attempt")) or 0)): r for r in found})
        except (OSError, StoreError):
            return {}
        return self._again[run][1]

    # -- reading ---------------------------------------------------------------------------------------------------------------
    def _folder(self, key: str) -> Path:
        found = self.runs().get(key)
        if found is None:
            raise UsageError(f"There is no run {key!r}.")
        return found

    def _catalog(self, folder: Path) -> Catalog:
        with self._guard:
            return self._catalogs.setdefault(folder, Catalog(folder))


def _given(folder: Path) -> Data | None:
    """What the session was given of earlier ones; None if its run has no experience."""
    given = read_given(folder)
    if given is None:
        return None
    frozen = {} if given.frozen_logprob is None else {"log p of what attempt 1 said, frozen": given.frozen_logprob}
    return {
        "numbers": {text(k): plain(v) for k, v in given.theta_1.items()} | frozen | {"rounds before it": given.rounds},
        "lessons": "\n".join(f"{one[0]} · {one[1]} · {one[2]}: {one[3]}" for one in given.lessons),
        "examples": "\n\n".join(f"{one[0]}\n{one[1]}\n→ {one[2]}" for one in given.examples),
    }


def _add_rescored(attempt: Data, again: Data) -> None:
    """To each step: what the policy would now do, and where the run itself has no token probabilities, those of the rescoring."""
    moved, lines = shifts(again.get("replies")), again.get("proposals")
    for place, step in enumerate(attempt["steps"]):
        line = lines[place] if isinstance(lines, list) and place < len(lines) and isinstance(lines[place], dict) else {}
        step["now"] = text(line.get("now"))
        step["shift"] = step["shift"] or moved.get(place)
