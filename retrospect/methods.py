"""``adapt.words.method``: how a failure becomes the guidance of the next attempt, by name.

A method of your own is a function, named as ``adapt.words.method=my.module:method`` or offered by a package as an entry point of the
group ``agentlab.words``::

    def method(failure: Failure) -> str | Revision:
        return f"{failure.previous} Do not say {failure.trace.steps[-1].action_text} again."

It is asked after every failed attempt, in order, and keeps nothing between two calls: what it needs of earlier attempts is in the
:class:`Failure`.  What it raises on purpose (``AdaptationError``, ``InfrastructureError``) leaves the guidance as it was; anything else
is a mistake in it and ends the run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from envs.errors import UsageError, did_you_mean
from envs.plugins import Plugins, is_module_name

if TYPE_CHECKING:
    from retrospect.config import WordsConfig
    from retrospect.engines import WordsEngine
    from retrospect.evidence import Evidence
    from retrospect.guidance import Tried
    from retrospect.trace import Trace

PLUGINS = Plugins("method of the words", "agentlab.words")


@dataclass(frozen=True)
class Failure:
    """A failed attempt, with all that is known after it.

    Attributes:
        trace: The attempt, step by step.
        evidence: What visibly happened in it.
        attempts: What was tried in each failed attempt so far, this one last.
        memory: (attempt, text) of what the method asked to remember before, oldest first (:attr:`Revision.remember`).
        engine: Who writes (``adapt.words.engine``); None for ``rules``.
        config: The settings of the words.
    """

    trace: Trace
    evidence: Evidence
    attempts: Sequence[Sequence[Tried]]
    memory: Sequence[tuple[int, str]]
    engine: WordsEngine | None
    config: WordsConfig

    @property
    def previous(self) -> str:
        """The guidance that the attempt was made under."""
        return self.trace.guidance


@dataclass(frozen=True)
class Revision:
    """What a method makes of a failure.

    Attributes:
        guidance: For the next attempt.
        critique: The text that led there, for the record; of a :func:`scoring` method the steps' credit is read from it.
        gradient: Likewise, for methods that have one.
        remember: A text that later calls find in :attr:`Failure.memory`.
    """

    guidance: str
    critique: str = ""
    gradient: str = ""
    remember: str = ""


WordsMethod = Callable[[Failure], "str | Revision"]


def scoring(method: WordsMethod) -> WordsMethod:
    """Mark a method whose critique also scores the steps (:mod:`retrospect.credit`), so that ``credit=critique`` asks no judge."""
    method.scores_steps = True  # type: ignore[attr-defined]
    return method


def scores_steps(method: WordsMethod) -> bool:
    """Whether the method is a :func:`scoring` one."""
    return bool(getattr(method, "scores_steps", False))


def keep(failure: Failure) -> str:
    """The method ``none``: the guidance stays as it is."""
    return failure.previous


METHODS: Mapping[str, str] = {
    "textgrad": "retrospect.textgrad:revise",
    "reflexion": "retrospect.reflexion:revise",
    "none": "retrospect.methods:keep",
}
"""Our own methods; each is imported when it is used."""


def check_name(name: str) -> str:
    """``name``, if a method may be called that; nothing is loaded.

    Raises:
        UsageError: there is no such method.
    """
    known = [*METHODS, *PLUGINS.installed()]
    if name not in known and not is_module_name(name):
        hint = did_you_mean(name, known, what="method")
        raise UsageError(f"There is no method of the words {name!r}.", f"{hint} Or my.module:method.")
    return name


def method_named(name: str) -> WordsMethod:
    """The method ``name``: one of ours, of an installed package, or ``my.module:method``.

    Raises:
        UsageError: there is no such method, or it is not a function.
    """
    if name in METHODS:
        module, _, function = METHODS[name].partition(":")
        ours: WordsMethod = getattr(importlib.import_module(module), function)
        return ours
    found = PLUGINS.load(check_name(name))
    if not callable(found) or isinstance(found, type):
        raise UsageError(f"{name} is not a function.", "A method of the words is called with a retrospect.methods.Failure.")
    method: WordsMethod = found
    return method


def revise(method: WordsMethod, failure: Failure) -> Revision:
    """What the method makes of a failure.

    Raises:
        UsageError: it gives something else than guidance.
        InfrastructureError, AdaptationError, PolicyError, SetupError: as the method raises them.
    """
    made = method(failure)
    revision = made if isinstance(made, Revision) else Revision(made)
    for name, text in vars(revision).items():
        if not isinstance(text, str):
            raise UsageError(
                f"The method {failure.config.method} returned a {type(text).__name__} for {name}.",
                "It returns a text, or a retrospect.methods.Revision of texts.",
            )
    return revision
