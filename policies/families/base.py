"""A model family: how its checkpoints are asked and how their replies are read.  One folder each under ``policies/families``.

A stranger's family is a subclass of :class:`Family`, installed under the entry-point group ``agentlab.families``.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from policies.families.messages import PLATFORMS, Message, Platform
from policies.families.reply import Frame, Reply
from policies.families.settings import FamilySettings


@dataclass(frozen=True)
class Source:
    """Where something of a family is officially written.

    Attributes:
        repository: ``owner/name`` on GitHub, or a page's address.
        file: Path in it.
        revision: Commit; of a page, the day on which it was read.
        what: What was taken from there.
    """

    repository: str
    file: str
    revision: str
    what: str

    def __str__(self) -> str:
        return f"{self.repository} {self.file}@{self.revision[:10]}"


@dataclass(frozen=True)
class Recipe:
    """The settings of one published score.

    Attributes:
        policy: The policy's name.
        setting: What is scored, e.g. ``osworld-verified``.
        benchmark: The benchmark to run, as ``agentlab run`` names it.
        score: The published success rate in percent; None where the source names settings but no number.
        steps: Replies per attempt; None leaves it to the benchmark's tasks.
        source: Where number and settings are published.
        sampling: Fields of :class:`~policies.sampling.SamplingConfig`.
        model: Fields of :class:`FamilySettings` that differ from the family's defaults, ``family`` and ``platform``.
        env: Options of the environment.
        note: What else must match, or does not.
    """

    policy: str
    setting: str
    benchmark: str
    score: float | None
    steps: int | None
    source: Source
    sampling: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.policy}@{self.setting}"


@dataclass(frozen=True)
class Turn:
    """What a reply is asked for with.

    Attributes:
        instruction: The task, verbatim.
        guidance: What was learned in words; "" for none.
        history: Earlier (screenshot, reply) pairs of this attempt, oldest first; a screenshot may be None.
        screen: The current screenshot (it is passed through as it is).
        seen: (width, height) of the current screenshot as the model sees it.
        settings: In force.
        platform: The device.
    """

    instruction: str
    guidance: str
    history: Sequence[tuple[Any, str]]
    screen: Any
    seen: tuple[int, int]
    settings: FamilySettings
    platform: Platform = "computer"

    @property
    def first_image(self) -> int:
        """Index of the first earlier step whose screenshot is still shown."""
        return max(0, len(self.history) - (self.settings.history_images - 1))


class Family(abc.ABC):
    """How the checkpoints of one family are asked and read.

    Attributes:
        name: As ``model.family`` spells it.
        title: For people.
        architectures: ``model_type`` of its checkpoints' ``config.json``, as transformers names it; empty if they only run elsewhere.
        platforms: Devices that it has a prompt for.
        sources: Its official sources.
        checkpoints: Policy names and the hub repositories that they are loaded from.
        recognised: Matches the name of a checkpoint of the family (the last part of a hub id, a folder's, an endpoint's model).
        defaults: Its settings.
        factor: Sides of a picture are made multiples of this: patch size × merge size.
        variants: Wordings of the prompt (``model.variant``), the default first; empty if there is one.
        template: Variables of its checkpoints' chat template, e.g. that they are not to think first.
        general: A model that others are made from: only its own name tells it, not that a checkpoint comes from it.
        recipes: Published scores and their settings.
        limits: What of the official agent is not done here, one sentence each.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    architectures: ClassVar[frozenset[str]] = frozenset()
    platforms: ClassVar[tuple[Platform, ...]] = PLATFORMS
    sources: ClassVar[tuple[Source, ...]] = ()
    checkpoints: ClassVar[Mapping[str, str]] = {}
    recognised: ClassVar[re.Pattern[str]]
    defaults: ClassVar[FamilySettings] = FamilySettings()
    factor: ClassVar[int] = 28
    variants: ClassVar[tuple[str, ...]] = ()
    template: ClassVar[Mapping[str, Any]] = {}
    general: ClassVar[bool] = False
    recipes: ClassVar[tuple[Recipe, ...]] = ()
    limits: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def messages(self, turn: Turn) -> list[Message]:
        """The conversation that the next reply is generated from; its last picture is the current screen."""

    @abc.abstractmethod
    def parse(self, text: str, frame: Frame) -> Reply:
        """Thought, action part and actions of a reply, in time linear in its length.

        Raises:
            InvalidActionError: the reply is not an action; the message is short and made to be shown to the model.
        """

    @abc.abstractmethod
    def split(self, text: str) -> tuple[str, str]:
        """(thought, action part) of any text, for the record of a reply that is not an action; never raises."""

    def units(self, screen: tuple[int, int], seen: tuple[int, int], settings: FamilySettings) -> tuple[float, float]:
        """What the model takes for (width, height) of a screen of the size ``screen`` that it sees at the size ``seen``."""
        return settings.units(seen)

    def source_of(self, platform: Platform) -> Source | None:
        """The official source of the prompt for ``platform``."""
        return self.sources[0] if self.sources else None


def text_file(folder: str, name: str) -> str:
    """A prompt kept beside its family's code, byte for byte."""
    return Path(folder).with_name(name).read_bytes().decode("utf-8")


def filled(template: str, **values: str) -> str:
    """``template`` with ``{name}`` replaced by each value; one that holds such a name itself is left as it is."""
    return re.sub(r"\{(\w+)\}", lambda m: values.get(m[1], m[0]), template)
