"""What ``adb`` answers for the stand-in phone: the commands that upstream's code and our guest really send.

A command that is not known is an error, as on a phone, so that a test notices what is missing here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

from standin.phone import Phone
from standin.state import APPS, LAUNCHER

KEYCODES = {
    "3": "HOME",
    "4": "BACK",
    "66": "ENTER",
    "61": "TAB",
    "67": "DEL",
    "279": "PASTE",
    "82": "MENU",
    "113": "CTRL_LEFT",
    "29": "A",
}

VIEWERS = {"media": APPS["Gallery"], "contacts": APPS["Contacts"]}
"""Part of an address -> application that shows it."""


def _commands(script: str) -> list[list[str]]:
    """The commands of a line of shell, as words; what a pipe would filter is given whole."""
    lexer = shlex.shlex(script, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split, lexer.commenters = True, ""
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word in (";", "&&"):
            commands.append([])
        elif word == "|":
            break
        else:
            commands[-1].append(word)
    return [words for words in commands if words]


class UnknownCommandError(Exception):
    """The stand-in has no such command."""


class Adb:
    """Runs adb's arguments on ``phone`` and returns its output."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone
        self.log: list[str] = []

    def run(self, arguments: list[str]) -> str:
        verb, rest = arguments[0], arguments[1:]
        self.log.append(" ".join(arguments))
        if verb == "shell":
            return self.shell(" ".join(rest))
        if verb == "push":
            target = self._path(rest[1])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(rest[0], target)
            return ""
        if verb == "pull":
            shutil.copyfile(self._path(rest[0]), rest[1])
            return ""
        if verb in ("root", "devices", "install", "wait-for-device", "start-server", "kill-server"):
            return ""
        raise UnknownCommandError(" ".join(arguments))

    def shell(self, command: str) -> str:
        test = re.search(r'if \[ (-[fde]) "(.*?)" \]', command)
        if test:
            path = self._path(test[2])
            there = {"-f": path.is_file(), "-d": path.is_dir(), "-e": path.exists()}[test[1]]
            return "Exists\n" if there else "Does not exist\n"
        output = ""
        for words in _commands(command):
            output = self._dumpsys(command) if words[0] == "dumpsys" else output + self._one(words)
        return output

    def _one(self, words: list[str]) -> str:
        handler = getattr(self, f"_{words[0].replace('-', '_')}", None)
        if handler is None:
            raise UnknownCommandError(" ".join(words))
        return handler(words[1:]) or ""

    # -- input -----------------------------------------------------------------------------------------------------------------
    def _input(self, words: list[str]) -> None:
        kind, rest = words[0], words[1:]
        if kind == "text":
            self.phone.type(rest[0].replace("%s", " "))
        elif kind == "keyevent":
            for code in rest:
                self.phone.key(self._key(code))
        elif kind == "keycombination":
            if [self._key(code) for code in rest] == ["CTRL_LEFT", "A"]:
                self.phone.state.selected = True
        elif kind in ("tap", "swipe", "draganddrop"):
            numbers = [int(word) for word in rest]
            if kind == "tap":
                self.phone.tap(*numbers)
            else:
                x, y, end_x, end_y, ms = [*numbers, 300][:5]
                (self.phone.swipe if kind == "swipe" else self.phone.drag)(x, y, end_x, end_y, ms)
        else:
            raise UnknownCommandError(f"input {kind}")

    @staticmethod
    def _key(code: str) -> str:
        return KEYCODES.get(code, code.removeprefix("KEYCODE_"))

    # -- settings and services -------------------------------------------------------------------------------------------------
    def _settings(self, words: list[str]) -> str:
        verb, namespace, key = words[:3]
        values = self.phone.state.settings[namespace]
        if verb == "put":
            values[key] = words[3] if len(words) > 3 else ""
        elif verb == "delete":
            values.pop(key, None)
        return values.get(key, "null") + "\n" if verb == "get" else ""

    def _svc(self, words: list[str]) -> None:
        self.phone.state.settings["global"][f"{words[0]}_on"] = "1" if words[1] == "enable" else "0"

    def _whoami(self, _: list[str]) -> str:
        return "root\n"

    def _getprop(self, words: list[str]) -> str:
        return {"sys.boot_completed": "1", "ro.build.version.sdk": "33"}[words[0]] + "\n"

    def _date(self, words: list[str]) -> str:
        return "" if words else "Sun Oct 15 15:34:00 UTC 2023\n"

    def _service(self, _: list[str]) -> str:
        return "Result: Parcel(00000000    '....')\n"

    def _wm(self, words: list[str]) -> str:
        if words == ["dismiss-keyguard"]:
            return ""
        return f"Physical size: {self.phone.width}x{self.phone.height}\n"

    def _dumpsys(self, text: str) -> str:
        w, h = self.phone.width, self.phone.height
        if "logicalFrame" in text or "physicalFrame" in text:
            return f"    Viewport INTERNAL: logicalFrame=[0, 0, {w}, {h}], physicalFrame=[0, 0, {w}, {h}]\n"
        if "mCurrentRotation" in text:
            return "    mCurrentRotation=ROTATION_0\n"
        if "mCurrentFocus" in text:
            return f"  mCurrentFocus=Window{{1234 u0 {self.phone.activity}}}\n"
        if "mWakefulness" in text:
            return f"  mWakefulness={'Asleep' if self.phone.state.dark else 'Awake'}\n"
        if text.endswith("input"):
            return "  Viewport INTERNAL: displayId=0\n    SurfaceOrientation: 0\n"
        return ""

    # -- applications ----------------------------------------------------------------------------------------------------------
    def _am(self, words: list[str]) -> str:
        if words[0] == "force-stop":
            self.phone.close(words[1])
        elif words[:2] == ["stack", "list"]:
            activity = self.phone.activity
            return f"  taskId=7: {activity} bounds=[0,0][1,1] userId=0 visible=true topActivity=ComponentInfo{{{activity}}}\n"
        elif words[0] == "start" and "-n" in words:
            return self._start(words[words.index("-n") + 1])
        elif words[0] == "start":  # by what is to be shown
            self.phone.open(next((app for part, app in VIEWERS.items() if part in words[-1]), LAUNCHER))
        elif words[0] == "broadcast":
            return self._broadcast(words)
        return ""

    def _start(self, activity: str) -> str:
        package = activity.split("/")[0]
        known = next((a for a in APPS.values() if a.split("/")[0] == package), None)
        if known is None:
            return f"Error type 3\nError: Activity class {{{activity}}} does not exist.\n"
        self.phone.open(known)
        return "Status: ok\n"

    def _broadcast(self, words: list[str]) -> str:
        if "clipper.set" in words:
            self.phone.state.clipboard = words[-1]
            return 'Broadcasting: Intent\nBroadcast completed: result=-1, data="Text is copied into clipboard."\n'
        if "clipper.get" in words:
            return f'Broadcasting: Intent\nBroadcast completed: result=-1, data="{self.phone.state.clipboard}"\n'
        return "Broadcasting: Intent\nBroadcast completed: result=0\n"

    def _monkey(self, words: list[str]) -> str:
        package = words[words.index("-p") + 1]
        return self._start(f"{package}/.Main")

    def _pm(self, words: list[str]) -> str:
        if words[:2] == ["list", "packages"]:
            return "".join(f"package:{activity.split('/')[0]}\n" for activity in [*APPS.values(), LAUNCHER])
        if words[0] == "clear" and "contacts" in words[1]:
            self.phone.state.contacts.clear()
        return "Success\n"

    def _content(self, words: list[str]) -> str:
        if "content://contacts/phones/" not in words:
            return ""
        return "".join(f"Row: {i} display_name={n}, number={p}\n" for i, (n, p) in enumerate(self.phone.state.contacts))

    # -- files -----------------------------------------------------------------------------------------------------------------
    def _path(self, path: str) -> Path:
        path = path.replace("/sdcard/", "/storage/emulated/0/", 1) if path.startswith("/sdcard/") else path
        return self.phone.root / path.lstrip("/")

    def _ls(self, words: list[str]) -> str:
        folder = self._path(next(w for w in words if not w.startswith("-")))
        entries = sorted(folder.iterdir())
        if "-1" in words:
            return "".join(f"{e.name}\n" for e in entries)
        kind = {True: "d", False: "-"}
        return "".join(
            f"{kind[e.is_dir()]}rw-rw---- 1 root root {e.stat().st_size} 2023-10-15 15:34:00.000000000 +0000 {e.name}\n"
            for e in entries
        )

    def _mkdir(self, words: list[str]) -> None:
        self._path(words[-1]).mkdir(parents=True, exist_ok=True)

    def _rm(self, words: list[str]) -> None:
        target = self._path(words[-1])
        for path in list(target.parent.iterdir()) if target.name == "*" else [target]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _cp(self, words: list[str]) -> None:
        shutil.copytree(self._path(words[-2]), self._path(words[-1]), dirs_exist_ok=True)

    def _cat(self, words: list[str]) -> str:
        return self._path(words[0]).read_text()

    def _echo(self, words: list[str]) -> str:
        if ">" in words:
            self._path(words[-1]).write_text(" ".join(words[: words.index(">")]) + "\n")
            return ""
        return " ".join(words) + "\n"

    def _find(self, words: list[str]) -> str:
        top = self._path(words[0])
        found = [Path(folder) / name for folder, folders, files in os.walk(top) for name in [*folders, *files]]
        return "".join(f"/{path.relative_to(self.phone.root)}\n" for path in [top, *found])

    def _chmod(self, _: list[str]) -> None: ...

    def _restorecon(self, _: list[str]) -> None: ...
