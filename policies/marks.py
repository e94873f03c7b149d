"""What the tokens of a reply write: digits of a point, or what separates its parts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import torch
from torch import Tensor

_PARTS = re.compile(r"^\s*Thought:|(?:^|\n)\s*Action:|</?(?:tool_call|action|think|thinking|thought|answer)>|```\w*")
_POINT = re.compile(r"[(\[>]\s*-?\d[\d\s,.\-]*[)\]<]|\b[xy]\s{0,4}=\s{0,4}\d+(?:\.\d+)?")
_ACTION_TAGS = ("<tool_call>", "<action>")


def coordinate_tokens(pieces: Sequence[str]) -> Tensor:
    """True where a token writes digits of a point in the action part of a reply: [T] bool.  ``pieces``: the text of each token."""
    text = "".join(pieces)
    action = next((at for mark in _ACTION_TAGS if (at := text.find(mark)) >= 0), -1)
    if action < 0:
        fence = text.rfind("```", 0, max(text.rfind("```"), 0))
        action = fence if fence >= 0 else max(text.rfind("Action"), 0)
    return _touching(pieces, {i for m in _POINT.finditer(text, action) for i in range(m.start(), m.end()) if text[i].isdigit()})


def frame_tokens(pieces: Sequence[str]) -> Tensor:
    """True where a token writes what separates the parts of a reply (``Thought:``, ``Action:``, tags, code fences): [T] bool."""
    return _touching(pieces, {i for m in _PARTS.finditer("".join(pieces)) for i in range(m.start(), m.end())})


def _touching(pieces: Sequence[str], characters: set[int]) -> Tensor:
    """True where a token writes one of these characters of the text, [T] bool."""
    ends = list(itertools.accumulate(map(len, pieces)))
    return torch.tensor(
        [any(i in characters for i in range(end - len(piece), end)) for piece, end in zip(pieces, ends, strict=True)]
    )
