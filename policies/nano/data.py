"""From an expert's step to numbers: the prompt as the policy will see it, the reply, and the labels of the auxiliary heads."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from envs import actions as act
from policies.families.base import Turn
from policies.families.messages import Message
from policies.families.plain import Plain
from policies.nano.fast import FastBatch
from policies.nano.replies import Box, reply_text, to_relative
from policies.nano.screen import (
    CELL,
    CELLS,
    GRID_COLS,
    GRID_ROWS,
    MERGE,
    PATCH,
    PATCH_COLS,
    PATCH_ROWS,
    PATCHES,
    SCREEN_HEIGHT,
    SCREEN_WIDTH,
)

PLAIN = Plain()
SETTINGS = PLAIN.defaults.model_copy(update={"history_images": 1, "history_replies": 4})
"""How the bundled policy is asked, in training and in use."""

CHARACTERS = 95
"""Printable ASCII, ``chr(32)`` to ``chr(126)``: the classes of the reading head."""

SPELLED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/:-.@"
"""Characters of the words that replies copy out of the instruction."""

DIGIT_WEIGHT = 2.0
IGNORED = -100


@dataclass
class Example:
    """One step to learn.

    Attributes:
        task: Task name, for sampling and for figures per task.
        instruction, guidance: What the prompt says.
        history: The replies before this one.
        thought, action: The reply; the action in pixels.
        png: The screenshot.
        box: Where a pointing action may land, in pixels.
        characters: [n, 3] uint8: x, y, code of the visible characters.
        unread: [m, 4]: x, y, w, h of areas that may hold other characters.
    """

    task: str
    instruction: str
    history: Sequence[str]
    thought: str
    action: act.Action
    png: bytes
    box: Box | None
    characters: NDArray[np.uint8]
    unread: NDArray[np.int16]
    guidance: str = ""
    _encoded: tuple[list[int], list[int]] | None = field(default=None, repr=False)

    @property
    def reply(self) -> str:
        return reply_text(self.thought, self.action)

    def encoded(self, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
        """(prompt ids with the image's tokens expanded, reply ids with the end of turn), computed once."""
        if self._encoded is None:
            prompt = prompt_ids(tokenizer, self.instruction, self.guidance, self.history)
            reply = tokenizer(self.reply + "<|im_end|>", add_special_tokens=False).input_ids
            self._encoded = (prompt, reply)
        return self._encoded


def prompt_messages(instruction: str, guidance: str, history: Sequence[str]) -> list[Message]:
    """The conversation, with None for its one picture."""
    turn = Turn(instruction, guidance, [(None, reply) for reply in history], None, (SCREEN_WIDTH, SCREEN_HEIGHT), SETTINGS)
    return PLAIN.messages(turn)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, instruction: str, guidance: str, history: Sequence[str]) -> list[int]:
    """Token ids of the prompt, the image's placeholder expanded to one token per cell."""
    messages = prompt_messages(instruction, guidance, history)
    text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    text = text.replace("<|image_pad|>", "<|image_pad|>" * CELLS)
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def read_png(png: bytes) -> NDArray[np.uint8]:
    """[H, W, 3] uint8."""
    with Image.open(io.BytesIO(png)) as image:
        return np.array(image.convert("RGB"))


@dataclass
class TrainBatch:
    """A batch and its labels (B batch, Q answer positions, N patches, C cells).

    Attributes:
        inputs: What the network reads.
        targets: [B, Q] next tokens, ``IGNORED`` where padded.
        weights: [B, Q] float.
        cell: [B] cell of the pointing action, ``IGNORED`` for others.
        point: [B, 2] its place, x and y in 0-1.
        offset: [B, 2] the same within its cell, 0-1.
        digits: [B, 4] hundreds and tens of x, hundreds and tens of y, in 0-1000.
        source: [B, Q] index of the instruction's character that the next token copies, ``IGNORED`` where it copies none.
        point_at: [B] query index where the coordinates begin.
        patch_text: [B, N, CHARACTERS] uint8, which characters have their centre in the patch (processor's patch order).
        readable: [B, N] bool, whether that is known.
        tasks: Task of each row.
    """

    inputs: FastBatch
    targets: Tensor
    weights: Tensor
    cell: Tensor
    point: Tensor
    offset: Tensor
    digits: Tensor
    source: Tensor
    point_at: Tensor
    patch_text: Tensor
    readable: Tensor
    tasks: list[str]


def _patch_order() -> NDArray[np.int64]:
    """Raster index of a patch -> its index in the processor's order (merge windows first)."""
    order = np.arange(PATCHES).reshape(GRID_ROWS, GRID_COLS, MERGE, MERGE).transpose(0, 2, 1, 3)
    return order.reshape(PATCH_ROWS, PATCH_COLS)


_ORDER = _patch_order()


def make_batch(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, image_token: int) -> TrainBatch:
    """Stack examples, right-padded to a multiple of 8."""
    encoded = [example.encoded(tokenizer) for example in examples]
    b = len(examples)
    length = -(-max(len(prompt) + len(reply) - 1 for prompt, reply in encoded) // 8) * 8
    queries = -(-max(len(reply) for _, reply in encoded) // 4) * 4
    figures = {tokenizer.convert_tokens_to_ids(digit) for digit in "0123456789"}
    ids = np.zeros((b, length), np.int64)
    place = np.zeros((3, b, length), np.int64)
    starts = np.zeros(b, np.int64)
    query = np.zeros((b, queries), np.int64)
    targets = np.full((b, queries), IGNORED, np.int64)
    weights = np.zeros((b, queries), np.float32)
    point_at = np.zeros(b, np.int64)
    source = np.full((b, queries), IGNORED, np.int64)
    spelled: set[Any] = {tokenizer.convert_tokens_to_ids(piece) for piece in SPELLED}
    for row, (prompt, reply) in enumerate(encoded):
        whole = [*prompt, *reply[:-1]]
        ids[row, : len(whole)] = whole
        starts[row] = prompt.index(image_token)
        place[:, row] = positions(int(starts[row]), length)
        query[row] = np.minimum(np.arange(len(prompt) - 1, len(prompt) - 1 + queries), len(whole) - 1)
        targets[row, : len(reply)] = reply
        opening = _opening(reply, tokenizer)
        weights[row, : len(reply)] = [DIGIT_WEIGHT if i >= opening and t in figures else 1.0 for i, t in enumerate(reply)]
        point_at[row] = min(opening, len(reply) - 1)
        for at, origin in _copies(prompt[: starts[row]], reply[:opening], spelled):
            source[row, at] = origin
    inputs = FastBatch(
        screens=torch.from_numpy(np.stack([read_png(example.png) for example in examples])),
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(place),
        image_start=torch.from_numpy(starts),
        query=torch.from_numpy(query),
    )
    cell, point, offset, digits = _places(examples)
    text, readable = _characters(examples)
    return TrainBatch(
        inputs, torch.from_numpy(targets), torch.from_numpy(weights), cell, point, offset, digits, torch.from_numpy(source),
        torch.from_numpy(point_at), text, readable, [example.task for example in examples],
    )  # fmt: skip


def _opening(reply: list[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """Index of the first digit after the token that opens the coordinates; the length of the reply where there is none."""
    opens = {
        tokenizer.convert_tokens_to_ids(f"\nAction: {kind}(start_box='(")
        for kind in ("click", "drag", "hover", "left_double", "scroll")
    }
    return next((i + 1 for i, token in enumerate(reply) if token in opens), len(reply))


def _copies(prompt: list[int], reply: list[int], spelled: set[int]) -> Iterator[tuple[int, int]]:
    """(index in the reply, index in the prompt) of every character of a spelled-out word that the prompt spells, too."""
    at = 0
    while at < len(reply):
        end = at
        while end < len(reply) and reply[end] in spelled:
            end += 1
        word = reply[at:end]
        if len(word) >= 2:
            found = next((p for p in range(len(prompt) - len(word) + 1) if prompt[p : p + len(word)] == word), None)
            if found is not None:
                yield from ((at + i, found + i) for i in range(len(word)))
        at = end + 1


def positions(start: int, length: int) -> NDArray[np.int64]:
    """[3, length] multimodal positions of a prompt whose image begins at ``start`` (as ``get_rope_index``)."""
    out = np.tile(np.arange(length), (3, 1))
    rows, cols = np.divmod(np.arange(CELLS), GRID_COLS)
    out[0, start : start + CELLS] = start
    out[1, start : start + CELLS] = start + rows
    out[2, start : start + CELLS] = start + cols
    out[:, start + CELLS :] -= CELLS - max(GRID_ROWS, GRID_COLS)
    return out


def cell_of(x: float, y: float) -> int:
    """Index of the cell at a pixel."""
    return min(int(y) // CELL, GRID_ROWS - 1) * GRID_COLS + min(int(x) // CELL, GRID_COLS - 1)


def _places(examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    cell = torch.full((len(examples),), IGNORED, dtype=torch.int64)
    point, offset = torch.zeros(len(examples), 2), torch.zeros(len(examples), 2)
    digits = torch.zeros(len(examples), 4, dtype=torch.int64)
    for row, example in enumerate(examples):
        if isinstance(example.action, act.POINTED):
            x, y = example.action.x, example.action.y
            cell[row] = cell_of(x, y)
            point[row] = torch.tensor([x / SCREEN_WIDTH, y / SCREEN_HEIGHT])
            offset[row] = torch.tensor([x / CELL % 1.0, y / CELL % 1.0])
            across, down = to_relative(x, SCREEN_WIDTH), to_relative(y, SCREEN_HEIGHT)
            digits[row] = torch.tensor([across // 100, across // 10 % 10, down // 100, down // 10 % 10])
    return cell, point, offset, digits


def _characters(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    text = np.zeros((len(examples), PATCHES, CHARACTERS), np.uint8)
    readable = np.ones((len(examples), PATCH_ROWS, PATCH_COLS), bool)
    for row, example in enumerate(examples):
        x, y, code = example.characters.T.astype(np.int64)
        inside = (x < SCREEN_WIDTH) & (y < SCREEN_HEIGHT) & (code >= 32) & (code < 32 + CHARACTERS)
        patch = _ORDER[np.minimum(y[inside] // PATCH, PATCH_ROWS - 1), np.minimum(x[inside] // PATCH, PATCH_COLS - 1)]
        text[row, patch, code[inside] - 32] = 1
        for left, top, width, height in example.unread.tolist():
            readable[
                row, max(top, 0) // PATCH : -(-(top + height) // PATCH), max(left, 0) // PATCH : -(-(left + width) // PATCH)
            ] = False
    in_order = np.zeros((len(examples), PATCHES), bool)
    in_order[:, _ORDER.ravel()] = readable.reshape(len(examples), -1)
    return torch.from_numpy(text), torch.from_numpy(in_order)
