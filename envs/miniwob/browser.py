"""One Chromium process for all MiniWoB++ environments of this Python process.

:func:`find_browser` says which executable; :class:`Browser` owns the process.  Playwright's asynchronous API runs in one
background thread with its own event loop, so that environments can be used from any thread, and every call waits for a bounded
time: a dead, hung or killed browser is an :class:`~envs.errors.InfrastructureError` with component ``browser``, never a wait.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from envs.errors import InfrastructureError, SetupError

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page, Playwright, ViewportSize

T = TypeVar("T")

ENV_VAR = "AGENTLAB_BROWSER"
BY_HAND = f"Install Chromium, Google Chrome or Microsoft Edge, or set {ENV_VAR} to the path of such a browser."
REMEDIES = f"Run `agentlab setup miniwob`, which installs one. By hand: {BY_HAND[0].lower()}{BY_HAND[1:]}"

WIDTH, HEIGHT = 160, 220
"""Viewport in CSS pixels, device scale 1: the 160x210 task page and ten white rows, so that both sides are multiples of 20
(patches of 10 pixels merged two by two need no resampling)."""

LAUNCH_SECONDS = 120.0
CALL_SECONDS = 30.0
CLOSE_SECONDS = 5.0
VERSION_SECONDS = 60.0
STRAY_SECONDS = 0.05
"""Between two looks at whether a tab that has appeared is one of ours."""
BROWSER_FILES = 512
"""Open files that a browser and what drives it need, with some to spare."""

FLAGS = (
    # Same pixels everywhere: no GPU, no subpixel or hinted glyphs, one colour profile, no scroll bars.
    "--disable-gpu", "--disable-lcd-text", "--font-render-hinting=none", "--force-color-profile=srgb",
    "--force-device-scale-factor=1", "--hide-scrollbars",
    # Whole tiles are repainted: repainting parts leaves traces of their borders at rounded corners.
    "--disable-partial-raster",
    # Nothing but the page: no services, no first-run pages, no sound, no name resolution.
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-extensions",
    "--mute-audio", "--host-resolver-rules=MAP * ~NOTFOUND",
    # Containers give /dev/shm 64 MB, which Chromium overflows.
    "--disable-dev-shm-usage",
)  # fmt: skip

_ON_PATH = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "microsoft-edge-stable")
_INSTALLED = {
    "darwin": (
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    ),
    "win32": tuple(
        f"{os.environ.get(variable, '')}\\{vendor}"
        for vendor in (r"Google\Chrome\Application\chrome.exe", r"Microsoft\Edge\Application\msedge.exe")
        for variable in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")
        if os.environ.get(variable)
    ),
}
_PLAYWRIGHT_CACHE = {"darwin": "~/Library/Caches/ms-playwright", "win32": "~/AppData/Local/ms-playwright"}
_PLAYWRIGHT_BUILDS = ("chromium-*/*/chrome", "chromium-*/*/*.app/Contents/MacOS/*", "chromium-*/*/chrome.exe")


def find_browser(executable: str | None = None) -> str:
    """Path of the browser to use: ``executable``, else ``$AGENTLAB_BROWSER``, else an installed one, else Playwright's own.

    Raises:
        SetupError: none is found, or the one that was named is not there.
    """
    for named, origin in ((executable, "The browser given"), (os.environ.get(ENV_VAR), ENV_VAR)):
        if named:
            found = shutil.which(Path(named).expanduser())
            if found is None:
                raise SetupError(f"{origin} is {named!r}, which is not an executable file.", REMEDIES)
            return found
    found_here = installed_browsers()
    if not found_here:
        raise SetupError("No Chromium-based browser was found on this machine.", REMEDIES)
    return found_here[0]


def installed_browsers() -> list[str]:
    """Paths of the Chromium-based browsers of this machine, in order of preference."""
    found = (shutil.which(candidate) for candidate in _candidates())
    return list(dict.fromkeys(path for path in found if path))


def browser_version(executable: str) -> str:
    """What a browser says of itself; its path, where it says nothing."""
    try:
        said = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return executable
    return said.stdout.strip() or executable


def _candidates() -> Iterator[str]:
    yield from _ON_PATH
    yield from _INSTALLED.get(sys.platform, ())
    home = os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or _PLAYWRIGHT_CACHE.get(sys.platform, "~/.cache/ms-playwright")
    for pattern in _PLAYWRIGHT_BUILDS:
        yield from (str(path) for path in sorted(Path(home).expanduser().glob(pattern), reverse=True))


def _limit() -> str:
    """What to do about a limit of this shell that is below what a browser needs; "" if there is none."""
    files, memory = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS))
    if files != resource.RLIM_INFINITY and files < BROWSER_FILES:
        return f"This shell allows a process {files} open files, and a browser needs about {BROWSER_FILES}: `ulimit -n 4096`."
    if memory != resource.RLIM_INFINITY:
        return (
            f"This shell allows a process {memory >> 20} MB of addresses, and a browser reserves far more: `ulimit -v unlimited`."
        )
    return ""


class Browser:
    """A running Chromium, shared: :meth:`acquire` starts it for the first user, :meth:`release` stops it after the last.

    All methods may be called from any thread.  ``alive`` turns False for good when the process has died, has been closed, or
    has once failed to answer in time; the next :meth:`acquire` then starts a new one.  A page that hangs while the browser
    answers is that page's failure alone.
    """

    _shared: dict[tuple[int, str], Browser] = {}
    _lock = threading.RLock()

    def __init__(self, executable: str) -> None:
        self.executable = executable
        self.tag = f"--agentlab-browser={uuid.uuid4().hex}"  # ignored by Chromium; tells our process from any other
        self._users = 0
        self._dead = threading.Event()
        self._playwright: Playwright | None = None
        self._context: BrowserContext | None = None
        self._own: set[Page] = set()
        self._opening = 0
        self._loop = asyncio.new_event_loop()
        # A failure is raised by the call that was waiting; calls that Playwright left unawaited have nothing to add.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._thread = threading.Thread(target=self._loop.run_forever, name="agentlab-browser", daemon=True)

    # -- sharing ------------------------------------------------------------------------------------------------------------
    @classmethod
    def acquire(cls, executable: str | None = None) -> Browser:
        """The shared browser, started or restarted if need be.  Every acquire needs its :meth:`release`.

        Raises:
            SetupError: no browser on this machine, or it refuses to start.
            InfrastructureError: it did not start in time.
        """
        path = find_browser(executable)
        with cls._lock:
            key = (os.getpid(), path)  # a forked child must not talk to its parent's browser
            browser = cls._shared.get(key)
            if browser is None or not browser.alive:
                if browser is not None:
                    browser.close()
                browser = cls(path)
                browser._start()
                cls._shared[key] = browser
            browser._users += 1
            return browser

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users <= 0:
                self.close()

    # -- life ---------------------------------------------------------------------------------------------------------------
    @property
    def alive(self) -> bool:
        return not self._dead.is_set()

    def _start(self) -> None:
        from playwright.async_api import Error as PlaywrightError
        from playwright.async_api import TimeoutError as PlaywrightTimeout

        self._thread.start()
        try:
            self._wait(self._launch(), LAUNCH_SECONDS)
        except (TimeoutError, PlaywrightTimeout) as error:
            self.close()
            raise InfrastructureError(
                f"{self.executable} did not start within {LAUNCH_SECONDS:.0f} s.", "Is the machine overloaded?", component="browser"
            ) from error
        except (PlaywrightError, OSError) as error:
            self.close()
            reason = _first_line(str(error))
            raise SetupError(f"{self.executable} did not start: {reason}.", _limit() or REMEDIES) from error
        except BaseException as error:
            self.close()
            if (
                type(error) is Exception
            ):  # what Playwright raises when its driver dies under it, as on Ctrl-C, has no class of its own
                raise InfrastructureError(
                    f"{self.executable} did not start: {_first_line(str(error))}.",
                    "The next reset starts a new one.",
                    component="browser",
                ) from error
            raise

    async def _launch(self) -> None:
        from playwright.async_api import Error as PlaywrightError
        from playwright.async_api import async_playwright

        self._playwright = await async_playwright().start()
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        options: dict[str, Any] = {
            "executable_path": self.executable,
            "args": [*FLAGS, self.tag],
            "timeout": LAUNCH_SECONDS * 1000,
        }
        try:
            browser = await self._playwright.chromium.launch(chromium_sandbox=not root, **options)
        except PlaywrightError as error:
            # Many kernels and containers forbid user namespaces to ordinary users.  The pages are local and have no network.
            if "sandbox" not in str(error).lower() or root:
                raise
            browser = await self._playwright.chromium.launch(chromium_sandbox=False, **options)
        browser.on("disconnected", lambda _: self._dead.set())
        viewport: ViewportSize = {"width": WIDTH, "height": HEIGHT}
        self._context = await browser.new_context(
            viewport=viewport, screen=viewport, device_scale_factor=1, locale="en-US", timezone_id="UTC", offline=True,
            color_scheme="light", reduced_motion="reduce", accept_downloads=False, service_workers="block",
        )  # fmt: skip
        self._context.on("page", self._shut_strays)

    def close(self) -> None:
        """Stop the process; safe to call twice, from any thread, and on a browser that is dead or never started."""
        with self._lock:
            key = (os.getpid(), self.executable)
            if self._shared.get(key) is self:
                del self._shared[key]
            if self._loop.is_closed():
                return
            self._dead.set()
            if self._thread.is_alive():
                from playwright.async_api import Error as PlaywrightError

                # A browser that does not close when asked is killed below.
                with contextlib.suppress(PlaywrightError, TimeoutError):
                    self._wait(self._shutdown(), 2 * CLOSE_SECONDS)
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(CLOSE_SECONDS)
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if not self._thread.is_alive():
                self._loop.close()

    async def _shutdown(self) -> None:
        if self._playwright is None:
            return
        try:
            if self._context is not None and self._context.browser is not None:
                await asyncio.wait_for(self._context.browser.close(), CLOSE_SECONDS)
        finally:
            await asyncio.wait_for(self._playwright.stop(), CLOSE_SECONDS)

    def processes(self) -> list[psutil.Process]:
        """The operating system's processes of this browser that carry its tag (the main one, perhaps its launcher)."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if self.tag in process.cmdline():
                    found.append(process)
        return found

    # -- use ----------------------------------------------------------------------------------------------------------------
    def call(self, coroutine: Coroutine[Any, Any, T], seconds: float = CALL_SECONDS) -> T:
        """Run a coroutine that uses Playwright objects of this browser, and wait for it for at most ``seconds``.

        Raises:
            InfrastructureError: the browser or the page is gone, refused, or did not answer in time.
        """
        from playwright.async_api import Error as PlaywrightError

        if not self.alive:
            coroutine.close()
            raise InfrastructureError("The browser has died.", "The next reset starts a new one.", component="browser")
        try:
            return self._wait(coroutine, seconds)
        except TimeoutError as error:
            self._probe()
            raise InfrastructureError(
                f"The {'page' if self.alive else 'browser'} did not answer within {seconds:.0f} s.",
                "The next reset starts a new one.",
                component="browser",
            ) from error
        except PlaywrightError as error:
            self._probe()
            raise InfrastructureError(f"The browser failed: {_first_line(error.message)}.", component="browser") from error

    def _probe(self) -> None:
        """After a failure: is it the page or the browser?  (Nobody reports the death of Playwright's own driver process.)"""
        from playwright.async_api import Error as PlaywrightError

        try:
            if self.alive and self._context is not None:
                self._wait(self._context.cookies(), CLOSE_SECONDS)
        except (PlaywrightError, TimeoutError):
            self._dead.set()

    def _wait(self, coroutine: Coroutine[Any, Any, T], seconds: float) -> T:
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, seconds), self._loop)
        try:
            return future.result(seconds + 1.0)  # the loop's own bound comes first unless the loop itself is stuck
        except BaseException:
            future.cancel()
            raise

    def open_page(self, init_script: str) -> Page:
        """A new page with ``init_script`` run before the scripts of everything it will load."""
        return self.call(self._open_page(init_script))

    async def _open_page(self, init_script: str) -> Page:
        assert self._context is not None
        self._opening += 1
        try:
            page = await self._context.new_page()
            self._own.add(page)
        finally:
            self._opening -= 1
        page.on("close", lambda gone: self._own.discard(gone))
        page.set_default_timeout(CALL_SECONDS * 1000)
        await page.add_init_script(init_script)
        return page

    async def _shut_strays(self, page: Page) -> None:
        """Close a tab that an agent opened (a middle click on a link): no task has two, and they would stay until the run is over.

        Chromium gives such a tab no opener: it is known by not being one of ours, once no page of ours is about to be.
        """
        from playwright.async_api import Error as PlaywrightError

        while self._opening:
            await asyncio.sleep(STRAY_SECONDS)
        if page not in self._own:
            with contextlib.suppress(PlaywrightError):  # it has closed itself, or the browser is gone
                await page.close()

    def close_page(self, page: Page) -> None:
        """Close a page; a page that is already gone is closed."""
        with contextlib.suppress(InfrastructureError):
            self.call(page.close(), CLOSE_SECONDS)


def _first_line(text: str) -> str:
    """What happened, without Playwright's call log and the browser's own output."""
    return next(iter(text.strip().splitlines()), "").rstrip(".")


@atexit.register
def _close_all() -> None:
    for (pid, _), browser in list(Browser._shared.items()):
        if pid == os.getpid():
            browser.close()
