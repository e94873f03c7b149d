"""Procedural questions of the ``reasoning-gym`` package: endless instances by seed, nothing downloaded.

A family is a generator of that package at one difficulty, and the grader that decides its answers: ours, on the one final answer
(the package's own verifiers give part marks to replies that contain the right answer somewhere).  The difficulties are such that a
model of 135 M parameters solves some of each.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from typing import Any

from envs.errors import SetupError, UsageError, did_you_mean
from envs.reasoning.items import Item, Kind

TRAIN_SEED_START = 100_000
"""Instances below are for runs; from here on they are worked examples and training data."""
SHOTS = 4
"""Worked examples that an instance brings along."""

_import = threading.Lock()


@dataclass(frozen=True)
class TaskFamily:
    """One generator.

    Attributes:
        kind: The grader.
        settings: Of the package's generator, over its own defaults.
        generator: Its name there, if it is another one than the family's.
        guesses: How many answers there are to guess from, where they are few: guessing without replacement solves these.
        usable: Which of its questions are taken (others are redrawn from the seeds that follow).
        prepared: What is done to the package's data set before it is asked.
    """

    kind: Kind
    settings: dict[str, Any] = field(default_factory=dict)
    generator: str = ""
    guesses: int = 0
    usable: Callable[[dict[str, Any]], bool] = lambda entry: True
    prepared: Callable[[Any], None] = lambda dataset: None


class _InOrder(frozenset[str]):
    """A set that is read in order.  That of others depends on the process (PYTHONHASHSEED), and so would what is drawn from it."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__()))

    def __sub__(self, other: Set[object]) -> _InOrder:
        return _InOrder(super().__sub__(other))


def _letters_in_order(dataset: Any) -> None:
    dataset.letters = _InOrder(dataset.letters)


def _is_weekday(entry: dict[str, Any]) -> bool:
    return str(entry["answer"]).endswith("day")


FAMILIES: dict[str, TaskFamily] = {
    "basic_arithmetic": TaskFamily("number", {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}),
    "calendar_arithmetic": TaskFamily("word", usable=_is_weekday, guesses=7),
    "chain_sum": TaskFamily("number", {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}),
    "coin_flip": TaskFamily("number", {"min_trials": 2, "max_trials": 3}, guesses=5),
    "color_cube_rotation": TaskFamily("word", {"min_rotations": 1, "max_rotations": 1}, guesses=6),
    "count_bits": TaskFamily("number", {"min_n": 1, "max_n": 63}, guesses=6),
    "count_primes": TaskFamily("number", {"min_n": 1, "max_n": 30}),
    "decimal_chain_sum": TaskFamily(
        "number", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1, "max_decimal_places": 1}
    ),
    "family_relationships": TaskFamily("word", {"min_family_size": 4, "max_family_size": 4}),
    "gcd": TaskFamily("number", {"min_numbers": 2, "max_numbers": 2, "min_value": 2, "max_value": 30}),
    "gsm_symbolic": TaskFamily("number"),
    "isomorphic_strings": TaskFamily(
        "bool", {"min_string_length": 2, "max_string_length": 5}, guesses=2, prepared=_letters_in_order
    ),
    "lcm": TaskFamily("number", {"min_numbers": 2, "max_numbers": 2, "min_value": 2, "max_value": 12}),
    "leg_counting": TaskFamily("number", {"min_animals": 1, "max_animals": 2, "min_instances": 1, "max_instances": 4}),
    "letter_counting": TaskFamily("number", {"min_words": 1, "max_words": 3}),
    "number_sequence": TaskFamily("number", {"min_value": 0, "max_value": 20, "max_complexity": 1}),
    "products": TaskFamily("number", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}),
    "simple_equations": TaskFamily("number", {"min_terms": 2, "max_terms": 2, "min_value": 1, "max_value": 20}),
    "simple_geometry": TaskFamily("number", {"min_sides": 3, "max_sides": 4}),
    "spell_backward": TaskFamily("word", {"min_word_len": 3, "max_word_len": 4}),
    "syllogism": TaskFamily("bool", guesses=2),
    "time_intervals": TaskFamily("word", {"task_types": ["time"], "max_time_difference_seconds": 3600}),
    "word_sequence_reversal": TaskFamily("list", {"min_words": 3, "max_words": 3}),
    "word_sorting": TaskFamily("list", {"min_words": 3, "max_words": 3, "max_word_length": 6}),
}

NUMERIC = tuple(name for name, family in FAMILIES.items() if family.kind == "number" and not family.guesses)
"""Families to whose wrong answers a user can say "too large" or "too small"."""


@functools.lru_cache(maxsize=4096)
def item(family: str, seed: int) -> Item:
    """The instance ``seed`` of a family, with its worked examples.

    Raises:
        UsageError: no such family.
        SetupError: ``reasoning-gym`` is not installed.
    """
    return _made(family, seed, shots=examples(family))


@functools.cache
def examples(family: str) -> tuple[tuple[str, str], ...]:
    """(question, answer) of the first :data:`SHOTS` training instances."""
    made = [_made(family, TRAIN_SEED_START + number) for number in range(SHOTS)]
    return tuple((one.question, one.answer) for one in made)


def _made(name: str, seed: int, shots: tuple[tuple[str, str], ...] = ()) -> Item:
    if name not in FAMILIES:
        raise UsageError(f"There is no family of questions {name!r}.", did_you_mean(name, FAMILIES, what="family"))
    family = FAMILIES[name]
    package = _package()
    for number in range(1000):
        # Spread, so that an instance that is redrawn is not its neighbour's.
        dataset = package.create_dataset(family.generator or name, size=1, seed=seed + number * 1_000_003, **family.settings)
        family.prepared(dataset)
        entry = dataset[0]
        answer = "" if entry["answer"] is None else str(entry["answer"]).strip()
        if answer and family.usable(entry):
            question = str(entry["question"]).strip()
            return Item(id=f"{name}-{seed}", question=question, answer=answer, kind=family.kind, family=name, shots=shots)
    raise UsageError(f"The family {name} has no usable instance near seed {seed}.")  # never seen


def _package() -> Any:
    """``reasoning_gym``, imported when first needed: it takes seconds."""
    with _import:
        try:
            import reasoning_gym
        except ImportError as error:
            raise SetupError("The questions of reasoning-gym need that package.", "pip install 'reasoning-gym'") from error
        return reasoning_gym
