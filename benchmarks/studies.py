"""What is compared: the studies, their seeds, their methods and the settings that each method was swept over.

A study has tuning seeds and reporting seeds.  They are disjoint by construction: a study whose seeds overlap cannot be made, the
instances of the tuning stage are left out of the reporting stage (small families draw one question from several seeds), and
:func:`check_disjoint` refuses outcomes in which one instance is in both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from envs.base import TaskSpec
from envs.errors import UsageError

BIT = "one bit"
EFFECT = "visible effect"
FEEDBACK = "feedback"
"""What a method learns from besides the policy itself: that an attempt failed, what it visibly did, what a user says to it."""

Sets = tuple[str, ...]


@dataclass(frozen=True)
class Method:
    """A row of the tables.

    Attributes:
        name: Of the row; with ``words``, the engine that writes them is part of it.
        preset: Of ``--adapt``.
        fixed: ``--set`` options that it has whatever the sweep chooses.
        lines: The settings swept for it, the first one what it has where nothing was swept.
        uses: The information it uses, of BIT, EFFECT, FEEDBACK.
        only: Task names it is run on, where not on all.
    """

    name: str
    preset: str
    fixed: Sets = ()
    lines: tuple[Sets, ...] = ((),)
    uses: tuple[str, ...] = (BIT,)
    only: tuple[str, ...] | None = None

    def takes(self, task: TaskSpec) -> bool:
        """Whether it is run on this task."""
        return self.only is None or task.name in self.only


@dataclass(frozen=True)
class Study:
    """One comparison.

    Attributes:
        suite, policy: As ``agentlab run`` takes them.
        attempts: T_max, the shared first attempt included.
        tuning, reporting: Run seeds; they must not overlap.
        pairs: Failing first attempts wanted in the reporting stage, and in the tuning stage.
        base: ``--set`` options of all methods.
        methods: In the order in which they are run, which is that of their worth.
        tasks: Task names to restrict the suite to; None: the suite's own choice.
    """

    name: str
    suite: str
    policy: str
    attempts: int
    tuning: tuple[int, ...]
    reporting: tuple[int, ...]
    pairs: tuple[int, int]
    base: Sets
    methods: tuple[Method, ...]
    tasks: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        shared = set(self.tuning) & set(self.reporting)
        if shared:
            raise UsageError(f"The study {self.name} would report on seeds it is tuned on: {sorted(shared)}.")

    def method(self, name: str) -> Method:
        """The method of that name.

        Raises:
            UsageError: there is none.
        """
        for method in self.methods:
            if method.name == name:
                return method
        raise UsageError(f"The study {self.name} has no method {name!r}.", ", ".join(m.name for m in self.methods))


def instance_key(task: TaskSpec) -> str:
    """Equal for instances that ask the same: twelve hexadecimal digits of the question, or of the name and seed where there is none."""
    return hashlib.sha256("\x1f".join((task.env_id, task.name, _asked(task))).encode()).hexdigest()[:12]


def _asked(task: TaskSpec) -> str:
    if "source" not in task.options:
        return str(task.seed)
    from envs.reasoning.suite import item_of

    return item_of(task).prompt()


def check_disjoint(tuning: Iterable[str], reporting: Iterable[str]) -> None:
    """Raises UsageError if an instance (its :func:`instance_key`) is in both stages."""
    shared = set(tuning) & set(reporting)
    if shared:
        raise UsageError(
            f"{len(shared)} instances are both tuned on and reported on ({', '.join(sorted(shared)[:5])} …).",
            "Remove the outcomes of the reporting stage and run it again.",
        )


# -- the studies -------------------------------------------------------------------------------------------------------------------
def _temperatures(*values: float) -> tuple[Sets, ...]:
    return tuple((f"sampling.temperature={value}",) for value in values)


COOL = _temperatures(0.7, 0.3, 0.5, 1.0, 1.5)
COLD = (*COOL, *_temperatures(0.0))
"""Down to greedy, which is no retry where nothing is excluded."""
REPLY = ("adapt.weights.target=reply", "sampling.no_repeat=true")
EPISODE = ("adapt.weights.target=episode", "sampling.no_repeat=true")
PAPER = tuple(
    (f"adapt.weights.beta={b}", f"adapt.weights.damping={d}")
    for b, d in ((0.5, 0.0), (2.0, 0.0), (0.5, 0.1), (1.0, 0.1), (2.0, 0.1))
)
"""What the paper leaves open of ``rosa-paper``."""
RL = tuple(
    (f"adapt.weights.lr={lr}", f"adapt.weights.max_kl={kl}")
    for lr, kl in ((0.1, 0.1), (0.01, 0.1), (1.0, 0.03), (1.0, 0.3), (1.0, 1.0))
)
"""A short step, and long ones that are cut back to a given KL per token."""
RULES = "adapt.words.engine=rules"
HINT = "env.feedback=hint"
CONSISTENT = (HINT, "sampling.consistent=true")
CONVERSATION = "history=conversation"


def _reply_lines(*pairs: tuple[float, float]) -> tuple[Sets, ...]:
    return tuple((f"adapt.weights.beta={beta}", f"sampling.temperature={temperature}") for beta, temperature in pairs)


def _numeric() -> tuple[str, ...]:
    from envs.reasoning.gym import NUMERIC

    return NUMERIC


REASONING = Study(
    name="reasoning",
    suite="reasoning",
    policy="smollm2-135m",
    attempts=10,
    tuning=(7101, 7102),
    reporting=(8101, 8102, 8103, 8104),
    pairs=(400, 60),
    base=("model.max_batch=64", "model.max_new_tokens=64"),  # right replies of the tuning seeds had 36 at most
    methods=(
        Method("next-best", "next-best", lines=((), ("sampling.beams=30",))),
        Method("no-repeat", "no-repeat", lines=COLD),
        Method("rosa-reply", "rosa", REPLY, _reply_lines((1.0, 0.7), (1.0, 0.5), (1.0, 1.0), (0.5, 0.7), (1.0, 0.3), (1.0, 0.0))),
        Method("rosa", "rosa"),
        Method(
            "rosa2 (words: rules)", "rosa2", (RULES, *CONSISTENT, "adapt.weights.target=reply", "sampling.no_repeat=true"),
            tuple((f"sampling.temperature={t}", f"history={h}") for t, h in (
                (0.3, "fresh"), (0.5, "fresh"), (0.7, "fresh"), (0.3, "conversation"), (0.7, "conversation"), (0.0, "fresh"),
            )),
            uses=(BIT, FEEDBACK), only=_numeric(),
        ),
        Method(
            "rosa-paper", "rosa-paper", (), PAPER,
        ),
        Method("greedy conversation", "conversation"),
        Method("greedy conversation, hints", "conversation", (HINT,), uses=(BIT, FEEDBACK), only=_numeric()),
        Method("next-best, consistent", "next-best", CONSISTENT, ((), ("sampling.beams=30",)), (BIT, FEEDBACK), _numeric()),
        Method("no-repeat, consistent", "no-repeat", CONSISTENT, COLD, (BIT, FEEDBACK), _numeric()),
        Method(
            "rosa-reply, consistent", "rosa", (*CONSISTENT, *REPLY),
            _reply_lines((1.0, 0.3), (1.0, 0.5), (0.5, 0.3), (2.0, 0.3), (1.0, 0.7), (1.0, 0.0)), (BIT, FEEDBACK), _numeric(),
        ),
        Method("next-best, hints", "next-best", (CONVERSATION, HINT), uses=(BIT, FEEDBACK), only=_numeric()),
        Method(
            "rosa2, guided (words: rules)", "rosa2", (RULES, HINT, "adapt.weights.target=guided", "sampling.no_repeat=true"),
            _reply_lines((1.0, 0.7), (0.5, 0.7), (0.25, 0.7), (1.0, 1.0), (0.5, 0.3)), uses=(BIT, FEEDBACK), only=_numeric(),
        ),
        Method("rosa-reply, next-best", "rosa", ("adapt.weights.target=reply", "sampling.next_best=true", "adapt.weights.beta=1.0")),
        Method("best-of-k", "best-of-k", lines=COOL),
        Method("rl", "rl", lines=RL),
        Method("slot", "slot"),
    ),
)  # fmt: skip

MINIWOB = Study(
    name="miniwob",
    suite="miniwob",
    policy="ui-tars-nano",
    attempts=5,
    tuning=(7201, 7202),
    reporting=(8201, 8202, 8203, 8204),
    pairs=(300, 60),
    base=(),
    methods=(
        Method("next-best", "next-best", lines=((), ("sampling.radius=0.05",), ("sampling.radius=0.1",), ("sampling.beams=30",))),
        Method("no-repeat", "no-repeat", lines=COLD),
        Method("rosa-episode", "rosa", EPISODE, _reply_lines((1.0, 0.7), (1.0, 0.5), (1.0, 1.0), (0.5, 0.7), (2.0, 0.7), (1.0, 0.3))),
        Method("rosa", "rosa"),
        Method(
            "rosa2 (words: rules)", "rosa2", (RULES, "adapt.score_under=refined"),
            _reply_lines((1.0, 1.0), (1.0, 0.7), (2.0, 0.7), (1.0, 0.3), (0.5, 0.7), (1.0, 0.5)), uses=(BIT, EFFECT),
        ),
        Method("textgrad (words: rules)", "textgrad", (RULES,), COOL, uses=(BIT, EFFECT)),
        Method("best-of-k", "best-of-k", lines=COOL),
        Method("rosa-paper", "rosa-paper", (), PAPER),
        Method("rl", "rl", lines=RL),
        Method("slot", "slot"),
    ),
)  # fmt: skip

STUDIES = {study.name: study for study in (REASONING, MINIWOB)}
