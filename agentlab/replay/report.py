"""What came of a replay: tables, pictures of the divergences, and a file for programs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from agentlab.disk.files import write_atomic
from agentlab.replay.masks import differing
from agentlab.replay.replay import Divergence, Replay
from agentlab.results.pages import Section, write_pages
from envs.base import picture


def sections(found: Sequence[Replay], notes: Sequence[str] = ()) -> list[Section]:
    """Tables of a replay: how many attempts came out the same, and what became of the others."""
    graded = [r for r in found if not r.failure]
    summary = [
        ("attempts replayed", str(len(graded))),
        ("reproduced", str(sum(r.reproduced for r in graded))),
        ("diverged", str(sum(r.divergence is not None for r in graded))),
        ("another score", str(sum(r.score is not None and r.score != r.recorded for r in graded))),
        ("observations compared", str(sum(r.compared for r in graded))),
        ("observations not comparable", str(sum(r.unseen for r in graded))),
        ("attempts that could not be replayed", str(len(found) - len(graded))),
    ]
    others = [
        (
            f"{r.session}/{r.attempt}",
            _where(r.divergence),
            r.divergence.what if r.divergence else "–",
            _score(r.recorded),
            _score(r.score),
        )
        for r in graded
        if not r.reproduced
    ]
    failed = [(f"{r.session}/{r.attempt}", r.failure) for r in found if r.failure]
    pictures = tuple(name for name in _pictures(found))
    return [
        Section("Replay", ("", "count"), summary, " ".join(notes)),
        Section(
            "Attempts that went another way",
            ("attempt", "where", "what", "score then", "score now"),
            others,
            "Pictures: recorded, replayed, and what differs outside of the masks in black." if pictures else "",
            pictures,
        ),
        Section("Attempts that could not be replayed", ("attempt", "why"), failed),
    ]


def write(folder: Path, title: str, found: Sequence[Replay], notes: Sequence[str] = ()) -> None:
    """Write ``replay.md``, ``replay.html``, ``replay.json`` and the pictures into ``folder``.

    Raises:
        StoreError: it cannot be written.
    """
    write_pages(folder, "replay", title, [s for s in sections(found, notes) if s.rows], _pictures(found))
    lines = [
        {
            "session": r.session,
            "attempt": r.attempt,
            "reproduced": r.reproduced,
            "diverged_after": r.divergence.after if r.divergence else None,
            "what": r.divergence.what if r.divergence else "",
            "score_recorded": r.recorded,
            "score_replayed": r.score,
            "compared": r.compared,
            "unseen": r.unseen,
            "failure": r.failure,
        }
        for r in found
    ]
    write_atomic(folder / "replay.json", json.dumps({"notes": list(notes), "attempts": lines}, indent=2) + "\n")


def _pictures(found: Sequence[Replay]) -> dict[str, Callable[[Path], None]]:
    seen = [(r, r.divergence) for r in found if r.divergence is not None and "screenshot" in (r.divergence.recorded or {})]
    return {f"{r.session}_{r.attempt}.png": functools.partial(_draw, divergence) for r, divergence in seen}


def _draw(divergence: Divergence, path: Path) -> None:
    """Recorded, replayed, and where they differ, side by side."""
    assert divergence.recorded is not None and divergence.replayed is not None
    a, b = picture(divergence.recorded), picture(divergence.replayed)
    panels = [a, b]
    if a.shape == b.shape:
        differs = differing(a, b, divergence.masks)[:, :, None]
        panels.append(np.where(differs, 0, 255).astype(np.uint8).repeat(3, axis=2))
    width = sum(p.shape[1] for p in panels) + 8 * (len(panels) - 1)
    drawn = Image.new("RGB", (width, max(p.shape[0] for p in panels)), "#d9dee5")
    x = 0
    for panel in panels:
        drawn.paste(Image.fromarray(panel), (x, 0))
        x += panel.shape[1] + 8
    drawn.save(path)


def _where(divergence: Divergence | None) -> str:
    if divergence is None:
        return "–"
    return f"after step {divergence.after}" if divergence.after else "at the start"


def _score(score: float | None) -> str:
    return "not graded" if score is None else f"{score:g}"
