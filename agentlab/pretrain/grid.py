"""Many task pages in one browser page: the experts play a grid of them at once, and one screenshot shows all.

A screenshot is the slowest thing a browser does; a grid of 6 x 5 pages costs little more than a single one.  Each tile runs the
environment's own page script (:mod:`envs.miniwob`), so its pixels are those of :class:`~envs.miniwob.env.MiniWoBEnv`, with one
difference: the pointer and the keyboard focus are in one tile at a time.  Screens that show the focus (text fields), and a share of
all others, are therefore photographed at once, one by one, while their tile still has both.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from agentlab.pretrain.shards import Episode, Screen
from envs import actions as act
from envs.miniwob import actions as page_actions
from envs.miniwob import oracles, tasks
from envs.miniwob.browser import HEIGHT, WIDTH, Browser
from policies.nano.replies import snapped

if TYPE_CHECKING:
    from playwright.async_api import CDPSession, Frame, Page

GAP = 4
"""White pixels between tiles, so that focus rings and shadows stay in their own."""

ROUND_SECONDS = 120.0
RELOAD_EVERY = 25
"""Episodes per page load."""

STATEFUL = (
    "click-collapsible", "click-dialog", "click-scroll-list", "click-tab", "drag-items", "drag-sort-numbers", "form-sequence",
    "multi-layouts", "simon-says", "terminal", "use-slider",
)  # fmt: skip
"""Prefixes of tasks whose page keeps something of the previous episode: loaded afresh every second episode."""

POINTING = ("click-menu", "use-autocomplete", "drag-")
"""Prefixes of tasks that depend on where the pointer is."""

FOCUSED = ("click-dialog", "login-user-popup")
"""Prefixes of tasks whose first screen shows a focus that the page takes by itself."""


def page_script() -> str:
    """The environment's page script, the experts, and the collector's own part."""
    page = resources.files("envs.miniwob").joinpath("page.js").read_text(encoding="utf-8")
    tile = resources.files("agentlab.pretrain").joinpath("tile.js").read_text(encoding="utf-8")
    return "\n".join((page, oracles.script(), tile))


@dataclass
class _Tile:
    frame: Frame
    x: int
    y: int
    task: str = ""
    seed: int = 0
    instruction: str = ""
    exact: bool = False
    loads: int = 0
    episode: Episode = field(default_factory=list)
    look: dict[str, Any] = field(default_factory=dict)
    png: bytes | None = None
    busy: bool = False

    def shifted(self, action: act.Action) -> act.Action:
        if not isinstance(action, act.POINTED):
            return action
        moved: dict[str, Any] = {"x": action.x + self.x, "y": action.y + self.y}
        if isinstance(action, act.Drag):
            moved |= {"end_x": action.end_x + self.x, "end_y": action.end_y + self.y}
        shifted: act.Action = dataclasses.replace(action, **moved)  # type: ignore[arg-type]
        return shifted


class Grid:
    """Plays expert episodes on ``rows`` x ``columns`` pages.  Use as a context manager.

    Args:
        folder: Where the grid's page is written.
        exact_share: Share of episodes whose every screen is photographed with pointer and focus in place.
        seed: Decides which episodes those are.
    """

    def __init__(self, folder: Path, rows: int = 4, columns: int = 6, exact_share: float = 0.2, seed: int = 0) -> None:
        self._shape = (rows, columns)
        self._folder = folder
        self._exact_share = exact_share
        self._rng = np.random.default_rng(seed)
        self._tiles: list[_Tile] = []

    def __enter__(self) -> Grid:
        self._browser = Browser.acquire()
        try:
            self._page = self._browser.open_page(page_script())
            self._browser.call(self._open(self._page), ROUND_SECONDS)
        except BaseException:
            self._browser.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.close_page(self._page)
        self._browser.release()

    async def _open(self, page: Page) -> None:
        rows, columns = self._shape
        places = [(c * (WIDTH + GAP), r * (HEIGHT + GAP)) for r in range(rows) for c in range(columns)]
        frames = "".join(
            f'<iframe name="tile{i}" style="position:absolute;border:0;left:{x}px;top:{y}px;width:{WIDTH}px;height:{HEIGHT}px">'
            "</iframe>"
            for i, (x, y) in enumerate(places)
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        file = (self._folder / f"grid_{rows}x{columns}.html").resolve()
        file.write_text(f"<!doctype html><body style='margin:0;background:white'>{frames}</body>", encoding="utf-8")
        await page.set_viewport_size({"width": columns * (WIDTH + GAP), "height": rows * (HEIGHT + GAP)})
        await page.goto(file.as_uri(), wait_until="load")
        for i, (x, y) in enumerate(places):
            frame = page.frame(name=f"tile{i}")
            assert frame is not None
            self._tiles.append(_Tile(frame, x, y))
        self._cdp: CDPSession = await page.context.new_cdp_session(page)

    # -- playing ------------------------------------------------------------------------------------------------------------------
    def play(self, source: Callable[[int], tuple[str, int] | None]) -> Iterator[tuple[int, str, int, Episode, str]]:
        """Play episodes until ``source`` has no more.

        ``source(tile)`` gives the next (task, seed) for a tile; a tile that stays with its task saves loading the page.

        Yields:
            (tile, task, seed, episode, reason): the reason is "" for a solved episode, else why it was not solved.

        Raises:
            InfrastructureError: the browser died or hung.
        """
        exhausted: set[int] = set()
        while True:
            for index, tile in enumerate(self._tiles):
                if not tile.busy and index not in exhausted:
                    instance = source(index)
                    if instance is None:
                        exhausted.add(index)
                    else:
                        tile.busy = True
                        self._assign(tile, *instance)
            busy = [(index, tile) for index, tile in enumerate(self._tiles) if tile.busy]
            if not busy:
                return
            self._browser.call(self._round([tile for _, tile in busy]), ROUND_SECONDS)
            for index, tile in busy:
                outcome = self._after(tile)
                tile.busy = outcome == ""
                if outcome:
                    yield index, tile.task, tile.seed, tile.episode, "" if outcome == "solved" else outcome

    def _assign(self, tile: _Tile, task: str, seed: int) -> None:
        every = 2 if task.startswith(STATEFUL) else RELOAD_EVERY
        tile.loads = tile.loads + 1 if tile.task == task and tile.loads + 1 < every else 0
        tile.task, tile.seed, tile.episode, tile.look = task, seed, [], {}
        tile.exact = task.startswith(FOCUSED) or bool(self._rng.random() < self._exact_share)

    async def _round(self, busy: list[_Tile]) -> None:
        """One step of every busy tile: start or act, then look and photograph."""
        starting = [tile for tile in busy if not tile.look]
        await asyncio.gather(*(self._load(tile) for tile in starting if tile.loads == 0))
        for tile in busy:
            tile.png = None
        for tile in starting:
            if tile.task.startswith(FOCUSED):
                await self._page.mouse.click(tile.x + 1, tile.y + HEIGHT - 1)
                await self._start(tile)
                await self._photograph(tile)
        await asyncio.gather(*(self._start(tile) for tile in starting if not tile.task.startswith(FOCUSED)))
        for tile in busy:
            if tile not in starting:
                await self._act(tile)
        waiting = [tile for tile in busy if tile.png is None and not tile.look["done"]]
        await asyncio.gather(*(self._settle(tile) for tile in waiting))
        waiting = [tile for tile in waiting if not tile.look["done"]]
        if waiting:
            shot = await self._shoot(None)
            with Image.open(io.BytesIO(shot)) as image:
                whole = image.convert("RGB")
            for tile in waiting:
                tile.png = _png(whole.crop((tile.x, tile.y, tile.x + WIDTH, tile.y + HEIGHT)))

    async def _load(self, tile: _Tile) -> None:
        await tile.frame.goto(tasks.pages()[tile.task].as_uri(), wait_until="load")

    async def _start(self, tile: _Tile) -> None:
        tile.instruction = await tile.frame.evaluate("seed => __lab.start(seed)", tile.seed)
        await self._look(tile)

    async def _look(self, tile: _Tile) -> None:
        tile.look = await tile.frame.evaluate("([t, w, h]) => __tile.look(t, w, h)", [tile.task, WIDTH, HEIGHT])

    async def _settle(self, tile: _Tile) -> None:
        if tile.episode:
            await tile.frame.evaluate("__lab.settle()")
            await self._look(tile)

    async def _act(self, tile: _Tile) -> None:
        """Do the last reply of the tile's episode; while the screen shows a focus, photograph at once and go on with the next."""
        while True:
            await page_actions.perform(self._page, tile.shifted(tile.episode[-1].action))
            tile.look = await tile.frame.evaluate("({ ...__lab.state(), typing: __tile.typing() })")
            immediate = tile.exact or tile.look["typing"] or tile.task.startswith(POINTING)
            if tile.look["done"] or not immediate:
                return
            await self._settle(tile)
            await self._photograph(tile)
            if not tile.look["typing"] or tile.look["done"] or self._after(tile):
                return

    async def _photograph(self, tile: _Tile) -> None:
        shot = await self._shoot({"x": tile.x, "y": tile.y, "width": WIDTH, "height": HEIGHT, "scale": 1})
        with Image.open(io.BytesIO(shot)) as image:
            tile.png = _png(image.convert("RGB"))

    async def _shoot(self, clip: dict[str, float] | None) -> bytes:
        options: dict[str, Any] = {"format": "png", "optimizeForSpeed": True}
        if clip is not None:
            options["clip"] = clip
        answer = await self._cdp.send("Page.captureScreenshot", options)
        return base64.b64decode(answer["data"])

    def _after(self, tile: _Tile) -> str:
        """Record the new screen; "" to go on, else how the episode ended."""
        look = tile.look
        if look["left"]:
            return "left the page"
        if look["done"]:
            return "solved" if tasks.solved(tile.task, look["raw"]) else f"raw reward {look['raw']}"
        reply = look["reply"]
        if reply is None:
            return "the expert has no answer"
        if len(tile.episode) >= tasks.max_steps(tile.task):
            return "out of steps"
        action = snapped(act.from_json(reply["actions"][0]), reply.get("box"))
        assert tile.png is not None
        tile.episode.append(
            Screen(
                task=tile.task,
                seed=tile.seed,
                index=len(tile.episode),
                instruction=tile.instruction,
                thought=reply["thought"],
                action=action,
                box=reply.get("box"),
                png=tile.png,
                characters=np.array(look["characters"], np.uint8).reshape(-1, 3),
                unread=np.array(look["unread"], np.int16).reshape(-1, 4),
            )
        )
        return ""


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png", compress_level=1)
    return file.getvalue()
