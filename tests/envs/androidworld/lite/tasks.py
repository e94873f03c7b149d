"""Ten tasks that behave as upstream's of the same name, and a name with a budget for each of the others."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import random
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from standin.state import TASKS_DATABASE

FACTS = Path(__file__).parents[4] / "envs/androidworld/tasks.json"
NAMES = ("Emilia", "Freya", "Hugo", "Omar", "Ines"), ("Gonzalez", "Li", "Silva", "Ito", "Khan")
TITLES = ("Water the plants", "Call the bank", "Renew the passport", "Buy stamps", "Plan the trip")


class Task:
    """The life of one instance: built from its seed, initialised, scored, torn down."""

    template = "Do what {task} asks for."
    complexity = 1.0
    app_names: tuple[str, ...] = ()
    start_on_home_screen = True

    def __init__(self, params: dict[str, Any]) -> None:
        self.params, self.initialized = params, False

    @property
    def goal(self) -> str:
        return self.template.format(**self.params, task=type(self).__name__)

    @classmethod
    def draw(cls) -> dict[str, Any]:
        """Random parameters."""
        return {}

    def set_up(self, env: Any) -> None:
        """Make the phone what the task starts from."""

    def check(self, env: Any) -> bool:
        """Whether the phone is as the goal wants it."""
        return False

    def clean(self, env: Any) -> None:
        """Put the phone back."""

    def initialize_task(self, env: Any) -> None:
        env.interaction_cache = ""
        env.controller.adb("shell", "whoami")
        self.clean(env)
        if self.initialized:
            raise RuntimeError("initialised already")
        self.initialized = True
        random.seed(self.params["seed"])
        self.set_up(env)

    def is_successful(self, env: Any) -> float:
        if not self.initialized:
            raise RuntimeError("not initialised")
        return float(self.check(env))

    def tear_down(self, env: Any) -> None:
        self.clean(env)
        self.initialized = False


class InformationRetrieval(Task):
    """Scored by the answer; without one not done, without a look at the phone."""


class MiniWoBTask(Task):
    """A page that ends by itself, with a goal only once it is shown."""

    start_on_home_screen = False
    complexity = 3.0

    @property
    def goal(self) -> str:
        if not self.initialized:
            raise ValueError("no page, no goal")
        return 'Click on the "Settings" button.'

    def check(self, env: Any) -> bool:
        return is_episode_terminated(env)


def is_episode_terminated(env: Any) -> bool:
    """The page is over when Settings are in front."""
    return "settings" in env.foreground_activity_name


def switch(name: str, key: str, start: int, end: int) -> type[Task]:
    """A task to set one of the phone's switches; ``Verify`` tasks begin where they are to end."""

    class Switch(Task):
        what, value = {"wifi_on": "wifi", "bluetooth_on": "bluetooth"}[key], ("off", "on")[end]
        template = f"Turn {what} {value}."

        def set_up(self, env: Any) -> None:
            env.controller.adb("shell", f"settings put global {key} {start}")

        def check(self, env: Any) -> bool:
            return env.controller.adb("shell", f"settings get global {key}").strip() == str(end)

    return type(name, (Switch,), {})


class SystemBrightnessMax(Task):
    template = "Turn brightness to the max value."

    def set_up(self, env: Any) -> None:
        env.controller.adb("shell", "settings put system screen_brightness 1")

    def check(self, env: Any) -> bool:
        return env.controller.adb("shell", "settings get system screen_brightness").strip() == "255"


class ContactsAddContact(Task):
    template = "Create a new contact for {name}. Their number is {number}."

    @classmethod
    def draw(cls) -> dict[str, Any]:
        return {"name": " ".join(map(random.choice, NAMES)), "number": f"+1{random.randrange(10**9, 10**10)}"}

    def clean(self, env: Any) -> None:
        env.controller.adb("shell", "pm clear com.android.providers.contacts")

    def check(self, env: Any) -> bool:
        rows = env.controller.adb("shell", "content query --uri content://contacts/phones/").splitlines()
        return any(f"display_name={self.params['name']}, number={self.params['number']}" in row for row in rows)


class TasksHighPriorityTasks(InformationRetrieval):
    template = "What are my high priority tasks in Tasks app? Answer with the titles only."

    @classmethod
    def draw(cls) -> dict[str, Any]:
        return {"task_title": random.choice(TITLES)}

    def set_up(self, env: Any) -> None:
        self._change(env, "INSERT INTO tasks (title, importance) VALUES (?, 0)", [(self.params["task_title"],)] * 30)

    def clean(self, env: Any) -> None:
        self._change(env, "DELETE FROM tasks WHERE 1 = ?", [(1,)])

    @staticmethod
    def _change(env: Any, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with sqlite3.connect(env.controller.world.phone.root / TASKS_DATABASE) as database:
            database.executemany(statement, rows)
        database.close()

    def check(self, env: Any) -> bool:
        return bool(env.interaction_cache) and env.interaction_cache.strip() == self.params["task_title"]


class TasksDueOnDate(TasksHighPriorityTasks):
    """As upstream's, it puts other words for its date into its own parameters when it is initialised."""

    template = "What tasks do I have due {date} in Tasks app? Answer with the titles only."

    @classmethod
    def draw(cls) -> dict[str, Any]:
        return {**super().draw(), "date": f"October {random.randrange(16, 30)} 2023"}

    def set_up(self, env: Any) -> None:
        super().set_up(env)
        day = int(self.params["date"].split()[1])  # the second time it reads its own words and makes another date of them
        self.params["date"] = f"in {day - 15} days"


class RetroPlayingQueue(Task):
    """The one that upstream's own script calls broken."""

    def set_up(self, env: Any) -> None:
        raise sqlite3.OperationalError("no such table: playing_queue")


class MarkorCreateFolder(Task):
    """Has the time of its making in its goal; ``clock`` is the module that the guest replaces."""

    template = "Create a new folder in Markor named {folder_name}."
    clock: Any = SimpleNamespace(datetime=datetime)

    @classmethod
    def draw(cls) -> dict[str, Any]:
        return {"folder_name": f"folder_{cls.clock.datetime.datetime.now():%Y%m%d_%H%M%S}"}


MADE: dict[str, type[Task]] = {
    "SystemWifiTurnOff": switch("SystemWifiTurnOff", "wifi_on", 1, 0),
    "SystemWifiTurnOffVerify": switch("SystemWifiTurnOffVerify", "wifi_on", 0, 0),
    "SystemWifiTurnOnVerify": switch("SystemWifiTurnOnVerify", "wifi_on", 1, 1),
    "SystemBluetoothTurnOn": switch("SystemBluetoothTurnOn", "bluetooth_on", 0, 1),
    "SystemBluetoothTurnOff": switch("SystemBluetoothTurnOff", "bluetooth_on", 1, 0),
    **{c.__name__: c for c in (
        SystemBrightnessMax, ContactsAddContact, TasksHighPriorityTasks, TasksDueOnDate, RetroPlayingQueue, MarkorCreateFolder,
    )},
}  # fmt: skip
FAMILIES = ("android_world", "android", "information_retrieval", "miniwob", "miniwob_subset")


class Registry:
    """Upstream's families."""

    @functools.cache
    def get_registry(self, family: str) -> dict[str, type[Task]]:
        if family not in FAMILIES:
            raise ValueError(f"no family {family}")
        facts = json.loads(FACTS.read_text())
        if family.startswith("miniwob"):
            return {page: type(page, (MiniWoBTask,), {}) for page in facts[family]}
        answering = set(facts["information_retrieval"])
        known = {}
        for name, (complexity, *_) in facts["android_world"].items():
            if family == "android_world" or (name in answering) == (family == "information_retrieval"):
                made = MADE.get(name) or type(name, (InformationRetrieval if name in answering else Task,), {})
                made.complexity = float(complexity)
                known[name] = made
        return known


def create_suite(registry: dict[str, type[Task]], n_task_combinations: int = 1, seed: int | None = None) -> dict[str, list[Task]]:
    """Instances, alphabetical; index i does not depend on how many there are."""

    def build(name: str, index: int) -> Task:
        number = int(hashlib.sha256(f"{seed}_{name}_{index}".encode()).hexdigest(), 16) % 2**32
        random.seed(number)
        return registry[name]({**registry[name].draw(), "seed": number})

    return {name: [build(name, i) for i in range(n_task_combinations)] for name in sorted(registry)}
