"""The phone itself: applications whose screens change with taps, swipes, text and keys.

A launcher, Settings (a list longer than the screen, with Wi-Fi, Bluetooth and brightness), Contacts with a form, and a page with a
title for every other application.  Sizes are fractions of the screen, so it works at 1080x2400 and at a sixth of that.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from standin.state import APPS, CONTACTS, FIELDS, LABELS, LAUNCHER, SETTINGS, SETTINGS_ROWS, TASKS_DATABASE, Node, State


class Phone:
    """State and screens of a phone of ``width`` x ``height`` pixels whose files lie under ``root``."""

    def __init__(self, width: int, height: int, root: Path) -> None:
        self.width, self.height, self.root = width, height, root
        self.state = State()
        self.kept_in = root.with_name("snapshots")
        (root / "storage/emulated/0").mkdir(parents=True, exist_ok=True)
        for activity in APPS.values():
            (root / "data/data" / activity.split("/")[0]).mkdir(parents=True, exist_ok=True)
        self.make_database(root / TASKS_DATABASE)

    @staticmethod
    def make_database(path: Path) -> None:
        """The to-do application's database, as the application makes it when it is first opened."""
        columns = (
            "title TEXT, importance INTEGER, dueDate INTEGER, hideUntil INTEGER, created INTEGER, modified INTEGER, completed INTEGER, "
            "deleted INTEGER, notes TEXT, estimatedSeconds INTEGER, elapsedSeconds INTEGER, timerStart INTEGER, "
            "notificationFlags INTEGER, lastNotified INTEGER, recurrence TEXT, repeat_from INTEGER, calendarUri TEXT, remoteId TEXT, "
            'collapsed INTEGER, parent INTEGER, "order" INTEGER, read_only INTEGER, _id INTEGER PRIMARY KEY AUTOINCREMENT'
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(path) as database:
            database.execute(f"CREATE TABLE IF NOT EXISTS tasks ({columns})")
        database.close()

    # -- snapshots -------------------------------------------------------------------------------------------------------------
    def save(self, name: str) -> None:
        """Kept on disk, like an emulator's snapshots."""
        shutil.copytree(self.root, self._kept(name), dirs_exist_ok=True)
        self._kept(name).with_suffix(".json").write_text(json.dumps(dataclasses.asdict(self.state)))

    def load(self, name: str) -> None:
        self.state = State(**json.loads(self._kept(name).with_suffix(".json").read_text()))
        shutil.rmtree(self.root)
        shutil.copytree(self._kept(name), self.root)

    def snapshots(self) -> list[str]:
        return sorted(path.stem for path in self.kept_in.glob("*.json"))

    def _kept(self, name: str) -> Path:
        return self.kept_in / name

    # -- what it shows ---------------------------------------------------------------------------------------------------------
    @property
    def activity(self) -> str:
        return self.state.stack[-1].split("#")[0]

    @property
    def page(self) -> str:
        return self.state.stack[-1]

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int]:
        """From hundredths of the screen to pixels."""
        w, h = self.width / 100, self.height / 100
        return round(left * w), round(top * h), round(right * w), round(bottom * h)

    def nodes(self) -> list[Node]:
        """What is on the screen, from bottom to top."""
        pages: dict[str, Callable[[], list[Node]]] = {
            LAUNCHER: self._launcher,
            SETTINGS: self._settings,
            f"{SETTINGS}#network": lambda: self._switch("Network & internet", "Wi-Fi", "wifi_on"),
            f"{SETTINGS}#connected": lambda: self._switch("Connected devices", "Bluetooth", "bluetooth_on"),
            f"{SETTINGS}#display": self._display,
            CONTACTS: self._contacts,
            f"{CONTACTS}#new": self._form,
        }
        page = pages.get(self.page, self._plain)()
        return [Node(self.box(3, 0, 30, 3), text="15:34"), *page]

    def _launcher(self) -> list[Node]:
        nodes = []
        for i, name in enumerate(self.state.icons):
            left, top = 10 + 22 * (i % 4), 20 + 14 * (i // 4)

            def start(x: int, y: int, activity: str = APPS[name]) -> None:
                self.open(activity)

            nodes.append(
                Node(
                    self.box(left, top, left + 16, top + 9), text=name, kind="button", tap=start, hold=lambda n=name: self._about(n)
                )
            )
        return nodes

    def _about(self, name: str) -> None:
        self.open(f"{SETTINGS}#about {name}")

    def _title(self, text: str) -> Node:
        return Node(self.box(4, 5, 96, 10), text=text)

    def _settings(self) -> list[Node]:
        targets = {"Network & internet": "network", "Connected devices": "connected", "Display": "display"}
        nodes = [Node(self.box(0, 11, 100, 100), kind="list", desc="List of settings")]
        for i, row in enumerate(SETTINGS_ROWS):
            left, top, right, bottom = self.box(0, 12 + 8 * i, 100, 20 + 8 * i)
            top, bottom = top - self.state.offset, bottom - self.state.offset
            if top >= self.box(0, 11, 0, 0)[1] and bottom <= self.height:
                page = f"{SETTINGS}#{targets.get(row, 'about ' + row)}"
                nodes.append(Node((left, top, right, bottom), text=row, kind="button", tap=lambda x, y, p=page: self.open(p)))
        return [self._title("Settings"), *nodes]

    def _switch(self, title: str, name: str, key: str) -> list[Node]:
        values = self.state.settings["global"]

        def flip(x: int, y: int) -> None:
            values[key] = "0" if values.get(key) == "1" else "1"

        return [
            self._title(title),
            Node(self.box(0, 14, 100, 22), text=name, kind="switch", checked=values.get(key) == "1", tap=flip),
        ]

    def _display(self) -> list[Node]:
        left, top, right, bottom = self.box(5, 20, 95, 25)
        level = int(self.state.settings["system"].get("screen_brightness", "1"))

        def set_level(x: int, y: int) -> None:
            share = min(max((x - left) / (right - 1 - left), 0.0), 1.0)
            self.state.settings["system"]["screen_brightness"] = str(round(1 + 254 * share))

        slider = Node((left, top, right, bottom), text=f"{level}", desc="Display brightness", kind="slider", tap=set_level)
        return [self._title("Display"), Node(self.box(5, 14, 95, 19), text="Brightness level"), slider]

    def _contacts(self) -> list[Node]:
        rows = [
            Node(self.box(0, 12 + 7 * i, 100, 19 + 7 * i), text=name, kind="button", hold=lambda i=i: self._delete(i))
            for i, (name, _) in enumerate(self.state.contacts[:10])
        ]
        plus = Node(
            self.box(78, 86, 96, 94), text="+", desc="Create contact", kind="button", tap=lambda x, y: self.open(f"{CONTACTS}#new")
        )
        return [self._title("Contacts"), *rows, plus]

    def _delete(self, index: int) -> None:
        del self.state.contacts[index]

    def _form(self) -> list[Node]:
        form = self.state.form
        nodes = [self._title("Create contact")]
        for i, (hint, key) in enumerate(FIELDS.items()):

            def focus(x: int, y: int, key: str = key) -> None:
                self.state.focus, self.state.selected = key, False

            box = self.box(8, 16 + 9 * i, 92, 23 + 9 * i)
            nodes.append(Node(box, text=form.get(key, ""), hint=hint, kind="field", focused=self.state.focus == key, tap=focus))
        label = form.get("label", LABELS[0])

        def next_label(x: int, y: int) -> None:
            form["label"] = LABELS[(LABELS.index(label) + 1) % len(LABELS)]

        nodes.append(Node(self.box(8, 43, 50, 48), text=label, desc=f"{label} Phone", kind="button", tap=next_label))
        nodes.append(Node(self.box(70, 5, 96, 10), text="Save", kind="button", tap=lambda x, y: self._save()))
        return nodes

    def _save(self) -> None:
        form = self.state.form
        name = f"{form.get('first', '')} {form.get('last', '')}".strip()
        if name:
            self.state.contacts.append([name, form.get("phone", "")])
        self.back()

    def _plain(self) -> list[Node]:
        title = (
            self.page.split("#about ")[-1] if "#" in self.page else next((n for n, a in APPS.items() if a == self.page), self.page)
        )
        return [self._title(title), Node(self.box(4, 14, 96, 20), text=f"Welcome to {title}")]

    # -- what is done to it ----------------------------------------------------------------------------------------------------
    def open(self, activity: str) -> None:
        self.state.offset = 0
        if activity in APPS.values():
            self.state.stack = [LAUNCHER]
        if self.page != activity:
            self.state.stack.append(activity)
        if activity.endswith("#new"):
            self.state.form, self.state.focus = {}, "first"

    def home(self) -> None:
        self.state.stack, self.state.focus = [LAUNCHER], ""

    def back(self) -> None:
        if len(self.state.stack) > 1:
            self.state.stack.pop()
        self.state.focus = ""

    def close(self, package: str) -> None:
        if self.activity.split("/")[0] == package:
            self.home()

    def at(self, x: int, y: int) -> Node | None:
        return next((n for n in reversed(self.nodes()) if n.has(x, y) and (n.tap or n.hold)), None)

    def tap(self, x: int, y: int) -> None:
        before = self.state.gestures[-1:]
        self.state.gestures.append(f"tap {x} {y}")
        node = self.at(x, y)
        if node is not None and node.tap is not None:
            node.tap(x, y)
            # Two taps at one place select a field's text.
            self.state.selected = node.kind == "field" and before == [f"tap {x} {y}"]

    def swipe(self, x: int, y: int, end_x: int, end_y: int, ms: int) -> None:
        self.state.gestures.append(f"swipe {x} {y} {end_x} {end_y} {ms}")
        if (x, y) == (end_x, end_y):
            node = self.at(x, y)
            if node is not None and ms >= 500:
                (node.hold or (lambda: None))()
            elif node is not None and node.tap is not None:
                node.tap(x, y)
            return
        node = self.at(x, y)
        if node is not None and node.kind == "slider" and node.tap is not None:
            node.tap(end_x, end_y)
        elif self.page == SETTINGS:
            longest = self.box(0, 12 + 8 * len(SETTINGS_ROWS), 0, 0)[1] - self.height
            self.state.offset = min(max(self.state.offset + y - end_y, 0), max(longest, 0))

    def drag(self, x: int, y: int, end_x: int, end_y: int, ms: int) -> None:
        """Icons of the launcher change places."""
        self.state.gestures.append(f"drag {x} {y} {end_x} {end_y} {ms}")
        if self.page != LAUNCHER:
            return
        here, there = self.at(x, y), self.at(end_x, end_y)
        if here is not None and there is not None:
            icons = self.state.icons
            i, j = icons.index(here.text), icons.index(there.text)
            icons[i], icons[j] = icons[j], icons[i]

    def type(self, text: str) -> None:
        if self.state.focus:
            old = "" if self.state.selected else self.state.form.get(self.state.focus, "")
            self.state.form[self.state.focus] = old + text
            self.state.selected = False

    def key(self, code: str) -> None:
        focus, form = self.state.focus, self.state.form
        keys = list(FIELDS.values())
        actions: dict[str, Callable[[], Any]] = {
            "HOME": self.home,
            "WAKEUP": lambda: setattr(self.state, "dark", False),
            "BACK": self.back,
            "PASTE": lambda: self.type(self.state.clipboard),
            "ENTER": lambda: setattr(self.state, "focus", keys[min(keys.index(focus) + 1, len(keys) - 1)] if focus in keys else ""),
            "TAB": lambda: self.key("ENTER"),
            "DEL": lambda: form.update({focus: "" if self.state.selected else form.get(focus, "")[:-1]}) if focus else None,
        }
        actions.get(code, lambda: None)()
