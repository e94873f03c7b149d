"""The row of a finished attempt: one flat line of ``results.jsonl`` for ``jq``, one typed object for everybody here.

``result.json`` of an attempt and its line in ``results.jsonl`` are the same JSON object.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from agentlab.disk.files import finite, mend, strict_json
from envs.errors import StoreError

SCHEMA: Final = 2
"""Version of the layout and of the rows; a run of another version is refused, never guessed at.  (1: folders that two tasks shared.)"""

LARGEST_NUMBER: Final = 2**64
"""No number of a row is as large as this, so that sums and means of them can be computed."""


class RowPart(BaseModel):
    """Base of a row and its parts: immutable, finite numbers, nothing converted, nothing unknown."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, int | float) and abs(value) >= LARGEST_NUMBER:
                raise ValueError(f"{name} is out of range")
        return self


class Seconds(RowPart):
    """Where the seconds of an attempt went."""

    acting: float = 0.0
    environment: float = 0.0
    words: float = 0.0
    weights: float = 0.0
    rest: float = 0.0

    def parts(self) -> dict[str, float]:
        """Seconds by name, in the order of :data:`SPLIT`."""
        return {part: getattr(self, part) for part in SPLIT}

    @property
    def total(self) -> float:
        return sum(self.parts().values())


SPLIT = tuple(Seconds.model_fields)
"""Names of the parts of an attempt's seconds."""


class WordsColumns(RowPart):
    """What of a reflection stands in the row; all of it is in the attempt's words.json.

    Attributes:
        distance: ‖Δx‖² of the guidance before and after, in [0, 1].
        seconds: Wall-clock.
        requests, tokens, cost: What the engine consumed; cost in USD.
        error: Why there is no new guidance, or no credit from the engine ("" if nothing failed).
        characters: Length of the guidance.
    """

    distance: float
    seconds: float
    requests: int
    tokens: int
    cost: float
    error: str
    characters: int


class JudgeColumns(RowPart):
    """What a judge said of the attempt (:mod:`retrospect.judge`); also the content of judge.json.

    Attributes:
        score: In [-1, 1]; None if it gave none.
        accepted: The score reached ``adapt.words.judge_accepts``.
        reply: What it wrote.
        seconds: Wall-clock.
        requests, tokens, cost: What its engine consumed; cost in USD.
        error: Why there is no score ("" if there is one).
    """

    score: float | None
    accepted: bool
    reply: str
    seconds: float
    requests: int
    tokens: int
    cost: float
    error: str


class UpdateColumns(RowPart):
    """What a weight update did; also the content of update.json.

    Attributes:
        method: Its name.
        accepted: The weights moved.
        seconds: Wall-clock of the update itself.
        error: Why it could not be computed; absent from the JSON where it could.
        numbers: The method's own, beside those above in the JSON; None for one that is not finite.
    """

    model_config = ConfigDict(extra="allow")

    method: str
    accepted: bool
    seconds: float
    error: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _finite(cls, data: Any) -> Any:
        """A method's own number that is not finite (the update is refused for it) is None, because JSON cannot hold it."""
        if not isinstance(data, dict):
            return data
        return {name: value if name in cls.model_fields else finite(value) for name, value in data.items()}

    @property
    def numbers(self) -> dict[str, Any]:
        return self.model_extra or {}

    @model_serializer(mode="wrap")
    def _without_no_error(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if name != "error" or value is not None}


class Breakage(RowPart):
    """The machinery broke a try at the attempt."""

    component: str
    message: str


class Row(RowPart):
    """A finished attempt.

    Attributes:
        schema_: :data:`SCHEMA`; ``schema`` in the JSON.
        task: Id of the task instance, unique within the run; ``name``, ``seed`` and ``domain`` are its parts.
        repeat: Which session at the same instance it is, from 1.
        feasible: False where the right answer is to declare the task infeasible.
        attempt: From 1.
        outcome: ``graded`` by the benchmark, or kept from ending by the machinery (``infrastructure``).
        score: The benchmark's, in [0, 1]; None if it was not graded.
        success: The score reached the run's threshold; where a judge alone decides (``env.feedback=judge``), and it accepted the answer.
        reward: r_t: +1 or −1, of the judge where it alone decides; None if it was not graded.
        judge: What a judge said of it; None if none was asked.
        session_over: No further attempt is made at the task.
        steps: Replies acted on.
        ended_by: ``finished``, ``fail``, ``environment``, ``budget`` or ``infrastructure``.
        invalid: Steps that the environment refused; ``unparsable``: those of them whose reply is not an action.
        redrawn: Replies drawn again (``sampling.no_repeat``); ``redrawn_unparsable``: those of them that are not actions.
        tokens: Generated, in all replies.
        forward_passes: Rows of the model's calls, of replies (those drawn again included) and of the update: a prompt, a token of a
            reply, a beam's token, a recorded reply scored again is one each.  What an engine of the words did is in ``words``.
        prefills: Those among them that read a prompt.
        seconds: Where the time went.
        hidden_seconds: Of the update, those that passed while the task was reset and the next prompt read (``overlap``): they are not in
            ``seconds``, which adds up to the clock's; ``update.seconds`` is all of it.
        memory: Peak memory of the run's process so far, in MB, by name.
        words: What was learned in words; None if nothing was to be learned.
        update: What was learned in weights; None if nothing was to be learned.
        adapter: An adapter was saved after it.
        guidance_hash: Of the guidance it was made under ("" if there was none).
        actions_hash: Of all its actions.
        infrastructure: The tries that the machinery broke.
    """

    schema_: Literal[2] = Field(default=SCHEMA, alias="schema")
    task: str
    name: str
    seed: int
    domain: str = ""
    repeat: int = 1
    feasible: bool = True
    attempt: int
    outcome: Literal["graded", "infrastructure"]
    score: float | None = None
    success: bool = False
    reward: Literal[1, -1] | None = None
    session_over: bool = True
    steps: int = 0
    ended_by: str = "infrastructure"
    invalid: int = 0
    unparsable: int = 0
    redrawn: int = 0
    redrawn_unparsable: int = 0
    tokens: int = 0
    forward_passes: int = 0
    prefills: int = 0
    seconds: Seconds = Seconds()
    memory: dict[str, float] = {}
    hidden_seconds: float = 0.0
    judge: JudgeColumns | None = None
    words: WordsColumns | None = None
    update: UpdateColumns | None = None
    adapter: bool = False
    guidance_hash: str = ""
    actions_hash: str = ""
    infrastructure: list[Breakage] = []

    @property
    def graded(self) -> bool:
        """The benchmark has scored it."""
        return self.outcome == "graded"

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)

    def line(self) -> str:
        """Its line of results.jsonl, with the newline."""
        return strict_json(self.to_json()) + "\n"


def parse_row(data: bytes, where: Path | str) -> Row:
    """A row from JSON.

    Args:
        data: UTF-8.
        where: Named in the error.

    Raises:
        StoreError: it is not a row that this version writes.
    """
    try:
        return Row.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        hint = mend(where) if isinstance(where, Path) else ""
        if first["type"] == "json_invalid":
            raise StoreError(f"{where} is corrupt: {first['msg']}.", hint) from error
        place = ".".join(str(part) for part in first["loc"])
        what = f"{place}: {first['msg']}" if place else first["msg"]
        raise StoreError(f"{where} is not the result of an attempt as this version writes it ({what}).", hint) from error
