"""OSWorld's task JSON: reading it, checking it, and what a task needs to be set up and graded.

A *job* is one such JSON object.  Fields beyond OSWorld's own, for tasks of ours: ``oracle``, a list of steps, each a list of actions
(:func:`envs.actions.to_json`); ``gold``, files beside the tasks that grading finds in its cache folder by their base name.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs import actions as act
from envs.errors import InvalidActionError, UsageError
from envs.osworld.ports import CHROMIUM, VLC
from envs.osworld.upstream import FILE_CACHE, HUB, cached_file

Job = Mapping[str, Any]

STEP_TYPES = frozenset(
    {
        "download", "upload_file", "launch", "open", "execute", "execute_with_verification", "command", "activate_window",
        "close_window", "sleep", "chrome_open_tabs", "chrome_close_tabs", "update_browse_history", "googledrive", "login",
        "change_wallpaper",
    }
)  # fmt: skip
"""Steps of ``config`` and ``postconfig`` that OSWorld's SetupController has (``act``, ``replay`` and ``tidy_desktop`` it only names)."""

EMPTY_HISTORY = f"{HUB}/{FILE_CACHE}/resolve/main/chrome/44ee5668-ecd5-4366-a6ce-c1c9b8d4e938/history_empty.sqlite?download=true"
"""What the step ``update_browse_history`` starts from."""

PLAIN = re.compile(r"\w[\w.-]*")
"""Ids name folders."""

RUNS_AGENT_CODE = frozenset({"check_python_file_by_test_suite"})
"""Metrics that import a file the agent wrote, as a program, where the grader runs."""


BROWSER_STEPS = frozenset({"chrome_open_tabs", "chrome_close_tabs", "login"})
BROWSER_GETTERS = frozenset(
    {
        "info_from_website", "page_info", "open_tabs_info", "active_tab_info", "pdf_from_url", "chrome_saved_address",
        "number_of_search_results", "active_tab_html_parse", "gotoRecreationPage_and_get_html_content", "chrome_appearance_mode_ui",
    }
)  # fmt: skip
"""What talks to the browser's debugging port, by reading OSWorld's code."""
VLC_GETTERS = frozenset({"vlc_playing_info"})


@dataclass(frozen=True)
class NeededFile:
    """A file that OSWorld's code looks for in its cache folder before it downloads it.

    Attributes:
        url: As the task names it.
        name: Under which OSWorld's code looks for it.
    """

    url: str
    name: str

    @property
    def kept(self) -> Path:
        """Where it is kept on this machine."""
        return cached_file(self.url)


def read_job(path: Path) -> dict[str, Any]:
    """One task.

    Raises:
        UsageError: it cannot be read, or is not a task that OSWorld's code could run.
    """
    try:
        job = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not an OSWorld task: {error}.", "Name a file in OSWorld's task JSON.") from error
    problem = _problem(job)
    if problem:
        raise UsageError(f"{path} is not an OSWorld task: {problem}.", f"Known steps: {', '.join(sorted(STEP_TYPES))}.")
    return dict(job)


def _problem(job: Any) -> str:
    if not isinstance(job, dict):
        return "it holds no JSON object"
    if not all(isinstance(job.get(key), str) and job[key] for key in ("id", "instruction")):
        return "it needs an id and an instruction"
    if not PLAIN.fullmatch(job["id"]):
        return f"{job['id']!r} is not an id"
    if not isinstance(job.get("evaluator"), dict) or "func" not in job["evaluator"]:
        return "it needs an evaluator with a func"
    for step in steps(job):
        if not isinstance(step, dict) or not isinstance(step.get("parameters"), dict):
            return "a step needs a type and parameters"
        if step.get("type") not in STEP_TYPES:
            return f"there is no step {step.get('type')!r}"
    try:
        oracle(job)
    except InvalidActionError as error:
        return f"its oracle: {error.message}"
    return ""


def steps(job: Job) -> list[Any]:
    """The steps of setting up, then those before grading."""
    return [*(job.get("config") or []), *(job["evaluator"].get("postconfig") or [])]


def functions(job: Job) -> list[str]:
    """Names of the metrics that grade it."""
    func = job["evaluator"]["func"]
    return list(func) if isinstance(func, list) else [func]


def feasible(job: Job) -> bool:
    """False where the right answer is to declare the task infeasible."""
    return functions(job) != ["infeasible"]


def getters(job: Job) -> Iterator[Mapping[str, Any]]:
    """What is looked at to grade it: results, and what they are compared with."""
    for state in ("result", "expected"):
        found = job["evaluator"].get(state) or []
        yield from (getter for getter in (found if isinstance(found, list) else [found]) if getter)


def ports(job: Job) -> set[int]:
    """Ports of the guest, beside its server's, that it is set up and graded through."""
    types = {getter.get("type") for getter in getters(job)}
    browser = BROWSER_GETTERS & types or BROWSER_STEPS & {step["type"] for step in steps(job)}
    return ({CHROMIUM} if browser else set()) | ({VLC} if VLC_GETTERS & types else set())


def needs_google(job: Job) -> bool:
    """Whether it works in a Google account, whose password somebody has to provide."""
    return any(step["type"] in ("googledrive", "login") for step in steps(job))


def oracle(job: Job) -> list[tuple[act.Action, ...]]:
    """The recorded solution, step by step; empty if the task has none.

    Raises:
        InvalidActionError: it is not made of actions.
    """
    return [tuple(act.from_json(action) for action in step) for step in job.get("oracle") or []]


def needed_files(job: Job) -> Iterator[NeededFile]:
    """What setting up and grading download, with the names that OSWorld's code gives them."""
    for step in steps(job):
        if step["type"] == "download":
            for file in step["parameters"]["files"]:
                url, base = file["url"], Path(file["path"]).name
                yield NeededFile(url, f"{uuid.uuid5(uuid.NAMESPACE_URL, url)}_{base}")
        elif step["type"] == "update_browse_history":
            yield NeededFile(EMPTY_HISTORY, "history_new.sqlite")
    for getter in getters(job):
        if getter.get("type") == "cloud_file":
            many = getter.get("multi", False)
            urls, names = (getter["path"], getter["dest"]) if many else ([getter["path"]], [getter["dest"]])
            yield from (NeededFile(url, name) for url, name in zip(urls, names, strict=True))
