"""What OSWorld's code needs of the machine that it runs on, watched: programs, packages, the reader of text in pictures, the browser's
driver.

Evaluators catch whatever goes wrong and score 0.  A part that is not there, or broke, is noted here where it was asked for.
"""

from __future__ import annotations

import builtins
import errno
import functools
import importlib.util
import os
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from .watch import CHROMIUM, Watch

OSWORLD = "desktop_env"
PROBED = ("ctypes.util", "platform", "uuid")
"""Modules of Python that try programs which need not be there."""
OPTIONAL = ("xwdtopnm", "pnmtopng")
"""Programs that OSWorld's code asks for before it uses them, and that only give an old picture format a third chance."""
NO_OCR = "easyocr, which reads text in pictures, is not installed: agentlab fetch osworld --ocr"
BROKE_OFF = "the connection to the browser broke off"
HOST_FAULTS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.EACCES}
)


class MissingPart(Exception):
    """The grader lacks something; also where OSWorld's code catches it, it was noted."""


def install(watch: Watch) -> None:
    """Watch all of it.  Before OSWorld's code is imported."""
    _watch_programs(watch)
    sys.meta_path.append(_Finder(watch))  # type: ignore[arg-type]
    _watch_ocr(watch)


def _called_by_osworld() -> bool:
    """Whether OSWorld's code is what is running, and not Python looking for something that need not be there."""
    frame: types.FrameType | None = sys._getframe(2)
    found = False
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name in PROBED:
            return False
        found = found or name.split(".")[0] == OSWORLD
        frame = frame.f_back
    return found


# -- programs ------------------------------------------------------------------------------------------------------------------------
def _watch_programs(watch: Watch) -> None:
    started, run = subprocess.Popen.__init__, subprocess.run

    @functools.wraps(started)
    def start(self: Any, args: Any, *rest: Any, **options: Any) -> None:
        try:
            started(self, args, *rest, **options)
        except OSError as error:
            program = str(args if isinstance(args, str | bytes | os.PathLike) else args[0])
            if _called_by_osworld() and program not in OPTIONAL:
                watch.lacking["program", program] = f"the program {program} cannot be run on this machine ({error.strerror})"
            raise

    @functools.wraps(run)
    def ran(*args: Any, **options: Any) -> Any:
        done = run(*args, **options)
        if done.returncode < 0 and _called_by_osworld():
            name = done.args if isinstance(done.args, str) else done.args[0]
            watch.lacking["program", str(name)] = f"the program {name} was killed on this machine (signal {-done.returncode})"
        return done

    subprocess.Popen.__init__ = start  # type: ignore[method-assign]
    subprocess.run = ran


# -- packages ------------------------------------------------------------------------------------------------------------------------
class _Finder:
    """Asked last, when no other finder has found a module."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if path is None and _imported_by_osworld():
            self._watch.lacking["package", name] = f"the Python package {name} is not in the grader's environment"


def _imported_by_osworld() -> bool:
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if not name.startswith("importlib"):
            return name.split(".")[0] == OSWORLD
        frame = frame.f_back
    return False


def _watch_ocr(watch: Watch) -> None:
    """A reader is unavailable without the package or without its weights, which it downloads when it is first used."""
    if importlib.util.find_spec("easyocr") is None:
        module = types.ModuleType("easyocr")

        def reader(*_: Any, **__: Any) -> Any:
            watch.lacking["package", "easyocr"] = NO_OCR
            raise MissingPart(NO_OCR)

        module.Reader = reader  # type: ignore[attr-defined]
        sys.modules["easyocr"] = module
        return
    import easyocr

    made = easyocr.Reader

    @functools.wraps(made)
    def make(*args: Any, **options: Any) -> Any:
        try:
            return made(*args, **options)
        except Exception as error:
            watch.lacking["package", "easyocr"] = f"easyocr cannot start ({type(error).__name__}: {error})"
            raise

    easyocr.Reader = make


# -- files ---------------------------------------------------------------------------------------------------------------------------
def watch_files(watch: Watch, modules: list[types.ModuleType]) -> None:
    """Notice files that cannot be kept on this machine, in modules whose own code takes that for a file that is not there."""

    def opened(*args: Any, **options: Any) -> Any:
        try:
            return builtins.open(*args, **options)  # noqa: PTH123 - it stands in for it
        except OSError as error:
            if error.errno in HOST_FAULTS:
                watch.lacking["file", str(args[0])] = f"{args[0]} cannot be opened on this machine ({error.strerror})"
            raise

    for module in modules:
        module.__dict__["open"] = opened


# -- the browser's driver ------------------------------------------------------------------------------------------------------------
def watch_browser(watch: Watch) -> None:
    """Notice connections to the guest's browser that fail or break, and pages of the task's own that are unavailable."""
    try:
        from playwright.sync_api import Browser, BrowserType, Page
    except ImportError as error:  # tasks without a browser are not affected
        watch.lacking["package", "playwright"] = f"playwright cannot be imported ({error})"
        return

    closing: set[int] = set()
    connect, goto = BrowserType.connect_over_cdp, Page.goto

    def broke_off(browser: Browser) -> None:
        if id(browser) not in closing:
            watch.broken[object()] = BROKE_OFF

    @functools.wraps(connect)
    def connected(self: Any, endpoint_url: str, **options: Any) -> Any:
        try:
            browser = connect(self, endpoint_url, **options)
        except Exception as error:
            watch.silent(CHROMIUM, "/json/version", str(error).partition("\n")[0])
            raise
        watch.looked = True
        watch.heard(CHROMIUM)
        closing.discard(id(browser))
        browser.on("disconnected", broke_off)
        return browser

    @functools.wraps(goto)
    def gone(self: Any, url: str, **options: Any) -> Any:
        try:
            answer = goto(self, url, **options)
        except Exception as error:
            said = str(error)
            if "net::ERR_" in said and "net::ERR_ABORTED" not in said and (watch.phase == "prepare" or watch.owns(url)):
                watch.broken["page", url] = f"the page {url} is unavailable ({said.partition(chr(10))[0]})"
            raise
        watch.broken.pop(("page", url), None)
        return answer

    BrowserType.connect_over_cdp, Page.goto = connected, gone  # type: ignore[method-assign]
    close = Browser.close

    @functools.wraps(close)
    def closed(self: Any, **options: Any) -> Any:
        closing.add(id(self))
        return close(self, **options)

    Browser.close = closed  # type: ignore[method-assign]
    for name in ("wait_for_selector", "wait_for_load_state"):
        setattr(Page, name, _noting(getattr(Page, name), watch))


def _noting(wait: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    """A login that timed out while a task was set up is only a line in OSWorld's log."""

    @functools.wraps(wait)
    def waited(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return wait(self, *args, **options)
        except Exception as error:
            if watch.phase == "prepare":
                watch.broken["login", self.url] = f"the login at {self.url} failed ({str(error).partition(chr(10))[0]})"
            raise

    return waited


# -- Google's services ---------------------------------------------------------------------------------------------------------------
def watch_google(watch: Watch) -> None:
    """They are not asked through ``requests``."""
    try:
        import httplib2
    except ImportError:
        return
    send = httplib2.Http.request

    @functools.wraps(send)
    def sent(self: Any, uri: str, *args: Any, **options: Any) -> Any:
        try:
            answer = send(self, uri, *args, **options)
        except Exception as error:
            watch.broken["google", uri] = f"{urlsplit(uri).hostname} cannot be reached ({type(error).__name__})"
            raise
        watch.broken.pop(("google", uri), None)
        return answer

    httplib2.Http.request = sent
