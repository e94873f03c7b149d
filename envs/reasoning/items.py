"""One question and what its right answer is: the schema of every reasoning suite, the user's own JSONL files included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from envs.answer_forms import LETTERS
from envs.errors import UsageError

Kind = Literal["math", "number", "word", "list", "bool", "choice", "code"]

MAX_FILE_BYTES = 512 * 2**20
"""A file of questions beyond this is refused and not read into memory."""


class Item(BaseModel):
    """One question.

    Kinds: ``math`` (an expression, by ``math-verify``), ``number`` (one exact number), ``word`` (one exact word or phrase),
    ``list`` (exact members in order), ``bool`` (yes or no, true or false), ``choice`` (a letter of ``choices``), ``code`` (Python
    that must pass ``tests`` in a container).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(default="", description="Unique within its file or suite; by default the number of its line.")
    question: str = Field(min_length=1, description="What the agent is asked, verbatim.")
    answer: str = Field(default="", description="The right answer; of code, nothing or a reference solution.")
    kind: Kind = Field(default="math", description="Which grader decides.")
    family: str = Field(default="", description="Group for tables: a subject, a generator.")
    choices: tuple[str, ...] = Field(default=(), description="Texts of the options A, B, C ... of a choice.")
    shots: tuple[tuple[str, str], ...] = Field(default=(), description="Worked examples (question, answer) that a policy may show.")
    tests: str = Field(default="", description="Python that raises unless the code before it is right; of code only.")
    entry_point: str = Field(default="", description="Name that the tests need; of code only.")
    prefix: str = Field(default="", description="Code that stands before the answer where it is only the function's body.")

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, data: Any) -> Any:
        """Numbers and truth values of JSON are answers too."""
        if isinstance(data, dict) and isinstance(data.get("answer"), bool | int | float):
            data = {**data, "answer": str(data["answer"])}
        return data

    @model_validator(mode="after")
    def _whole(self) -> Item:
        if self.kind == "code":
            if not self.tests.strip():
                raise ValueError("a code question needs tests")
        elif not self.answer.strip():
            raise ValueError("an answer is needed")
        if self.kind == "choice":
            letters = LETTERS[: len(self.choices)] if self.choices else LETTERS[:10]
            if self.answer.strip().upper() not in letters:
                raise ValueError(f"the answer of a choice is one of the letters {letters}")
        return self

    def prompt(self) -> str:
        """The question as it is asked: with its options, where there are any."""
        options = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, self.choices, strict=False))
        return self.question + options


def read_items(path: Path) -> list[Item]:
    """The questions of a JSONL file, one object per line; ids are made unique and non-empty.

    Raises:
        UsageError: no such file, or a line that is not a question (the line is named).
    """
    try:
        if not path.is_file():
            raise UsageError(f"There is no file of questions at {path}.", "Give a JSONL file: one object per line.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"{path} is larger than {MAX_FILE_BYTES // 2**20} MB.", "Split it.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", "Give a JSONL file in UTF-8.") from error
    items = list(_parsed(path, text))
    if not items:
        raise UsageError(f"{path} holds no question.", "Write one JSON object per line: question, answer, kind.")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise UsageError(f"{path}: the id {item.id!r} occurs twice.", "Ids must be unique.")
        seen.add(item.id)
    return items


def _parsed(path: Path, text: str) -> Iterator[Item]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            item = Item.model_validate(json.loads(line))
        except ValidationError as error:
            details = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'line'}: {e['msg']}" for e in error.errors())
            raise UsageError(f"{path}, line {number}: {details}.", "See docs/reasoning.md for the fields.") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}, line {number} is not JSON: {error}.", "Write one JSON object per line.") from error
        yield item if item.id else item.model_copy(update={"id": f"{number:05d}"})
