"""OSWorld's tasks as suites: its own lists, ours for the light desktop, and any folder or file in the same format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from envs.base import TaskSpec, TaskSuite
from envs.draws import draw
from envs.errors import UsageError, did_you_mean
from envs.osworld import jobs
from envs.osworld.upstream import tasks_folder

ENV_ID = "agentlab/osworld-v0"
UPSTREAM = {"test_all": 369, "test_nogdrive": 361, "test_small": 39, "test_infeasible": 28}
"""OSWorld's own lists, and how many tasks each has at the pinned revision."""
LIGHT = "light"
LIGHT_FOLDER = Path(__file__).with_name("tasks") / LIGHT
MAX_STEPS = 15
"""As in the published evaluations that are most often compared with; ``--set max_steps=50`` changes it."""


class OSWorldSuite(TaskSuite):
    """A fixed list of tasks, each named ``<domain>/<id>``.

    Args:
        subset: ``test_all`` (369 tasks), ``test_nogdrive`` (361: none that needs a Google account), ``test_small`` (39),
            ``test_infeasible`` (28), ``light`` (ours, for the light desktop), or a path: one task's JSON, a list in the format of
            ``test_all.json`` (its tasks beside it, as ``examples/<domain>/<id>.json`` or ``<domain>/<id>.json``), or a folder of
            such tasks.

    Raises:
        SetupError: (from what lists tasks) OSWorld's task set has not been fetched.
        UsageError: there is no such suite, or its files cannot be used.
    """

    name = "osworld"

    def __init__(self, subset: str = "test_all") -> None:
        self.subset = subset
        self.default_limit = UPSTREAM.get(subset) or max(len(self._paths), 1)

    @cached_property
    def _paths(self) -> dict[str, tuple[Path, Path]]:
        """Task name -> (its file, the folder that its relative paths mean)."""
        return _paths(self.subset)

    def task_names(self) -> list[str]:
        """``<domain>/<id>``, in the order of the list."""
        left_out = self.excluded()
        return [name for name in self._paths if name not in left_out]

    def excluded(self) -> dict[str, str]:
        """Tasks that run only when they are asked for by name, with the reason."""
        return {name: REFUSED for name, job in self.jobs.items() if jobs.RUNS_AGENT_CODE & set(jobs.functions(job))}

    @cached_property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """Task name -> its JSON, with paths to files beside the tasks made absolute."""
        return {name: _absolute(jobs.read_job(path), root) for name, (path, root) in self._paths.items()}

    def instances(self, names: Sequence[str] | None, seed: int) -> Iterator[TaskSpec]:
        """Every task once, in an order drawn from ``seed``, so that the first few of them are a fair sample."""
        chosen = self.task_names() if names is None else [self._find(name) for name in dict.fromkeys(names)]
        for name in sorted(chosen, key=lambda name: draw(seed, name, "order")):
            yield self.spec(name)

    def spec(self, name: str) -> TaskSpec:
        """The task ``name``."""
        job = self.jobs[name]
        budget = max(MAX_STEPS, 2 * len(job.get("oracle") or ()))
        return TaskSpec(ENV_ID, name, 0, budget, name.split("/")[0], jobs.feasible(job), {"task": job})

    def _find(self, name: str) -> str:
        """A task by its name, its id, or the first eight characters of its id."""
        found = [known for known in self._paths if name in (known, known.split("/")[-1], known.split("/")[-1][:8])]
        if len(found) != 1:
            raise UsageError(f"There is no OSWorld task {name!r} in {self.subset}.", did_you_mean(name, self._paths, what="task"))
        return found[0]


REFUSED = (
    "its official grader runs a program that the agent has changed on this machine, outside of the desktop; "
    "name it in --tasks and say --set osworld.run_agent_code=true if you want that"
)


def _paths(subset: str) -> dict[str, tuple[Path, Path]]:
    if subset in UPSTREAM:
        return _listed(tasks_folder() / f"{subset}.json")
    if subset == LIGHT:
        return _listed(LIGHT_FOLDER / "test_light.json")
    path = Path(subset).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.glob("*/*.json"))
        if not found:
            raise UsageError(f"{path} holds no tasks.", "They are looked for as <domain>/<id>.json.")
        return {f"{file.parent.name}/{file.stem}": (file, path) for file in found}
    if not path.is_file():
        hint = did_you_mean(subset, (*UPSTREAM, LIGHT), what="suite")
        raise UsageError(f"OSWorld has no suite {subset!r}, and there is no such file.", hint)
    if "evaluator" in _read(path):
        return {f"{path.parent.name}/{path.stem}": (path, path.parent)}
    return _listed(path)


def _listed(index: Path) -> dict[str, tuple[Path, Path]]:
    listed = _read(index)
    if not all(isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in listed.values()):
        raise UsageError(f"{index} is not a list of tasks.", 'It holds {"domain": ["id", ...]}.')
    examples = index.parent / "examples"
    folder = examples if examples.is_dir() else index.parent
    found = {f"{domain}/{i}": (folder / domain / f"{i}.json", index.parent) for domain, ids in listed.items() for i in ids}
    missing = [str(path) for path, _ in found.values() if not path.is_file()]
    if missing:
        raise UsageError(f"{index} names {len(missing)} tasks that are not there, such as {missing[0]}.")
    return found


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} holds no JSON object.")
    return data


def _absolute(job: dict[str, Any], root: Path) -> dict[str, Any]:
    """The job with ``gold`` and what its steps upload as absolute paths."""
    job = json.loads(json.dumps(job))
    for step in jobs.steps(job):
        if step["type"] == "upload_file":
            for file in step["parameters"]["files"]:
                file["local_path"] = str(root / file["local_path"])
    if "gold" in job:
        job["gold"] = [str(root / name) for name in job["gold"]]
    return job
