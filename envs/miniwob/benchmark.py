"""MiniWoB++ as a :class:`~envs.benchmark.Benchmark`; what is heavy is imported when it is asked for."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from envs.base import TaskSuite
from envs.benchmark import Benchmark, Check, Say
from envs.errors import SetupError
from envs.room import room

SETUP = "agentlab setup miniwob"
PAGE_GB, PAGE_CORES = 0.6, 0.5
"""Of a browser with one page and the process that drives it."""


class MiniWoB(Benchmark):
    """Web pages of one small task each, in a real browser."""

    name = "miniwob"
    summary = "MiniWoB++: small web pages in a real browser, endless instances"
    environment = "envs.miniwob.env:MiniWoBEnv"
    parts = {
        "core": "the tasks that the bundled policy is made for, as without a part",
        "experts": "all with a scripted expert",
        "all": "all that can be reproduced and solved",
    }

    place = "browsers"

    def suite(self, part: str = "") -> TaskSuite:
        from envs.miniwob.suite import MiniWoBSuite

        return MiniWoBSuite(part or "core")

    def prepare(self, options: Mapping[str, Any], say: Say) -> None:
        if next(self.downloads(options), None) is not None:
            self.setup(say)

    def downloads(self, options: Mapping[str, Any]) -> Iterator[str]:
        if "browser" not in options:
            try:
                _browser()
            except SetupError as error:
                yield f"a browser ({error.message})"

    def places(self) -> int:
        _browser()
        return room(PAGE_GB, PAGE_CORES)

    def traits(self, options: Mapping[str, Any]) -> Mapping[str, str]:
        from envs.miniwob.browser import browser_version, find_browser

        return {"browser": browser_version(find_browser(options.get("browser")))}

    def checks(self) -> Iterator[Check]:
        for module in ("miniwob", "playwright"):
            yield Check(module, functools.partial(_installed, module), "python -m pip install -e .", needed=True)
        yield Check("browser", _browser, SETUP, needed=True)

    def setup(self, say: Say) -> None:
        """Find a browser for MiniWoB++, or install one."""
        from envs.miniwob.setup import ensure_browser

        ensure_browser(say)


def _installed(module: str) -> str:
    if importlib.util.find_spec(module) is None:
        raise SetupError("missing")
    return "installed"


def _browser() -> str:
    from envs.miniwob.browser import find_browser

    return find_browser()


BENCHMARK = MiniWoB()
