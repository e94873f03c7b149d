"""Which family a checkpoint or an endpoint's model is of: by what the user says, by its name, by what it says of itself.

Never by its architecture alone: Fara, GUI-Owl, Holo and UI-TARS-1.5 all are Qwen2.5-VL, and one asked in another's prompt does not fail,
it clicks in the wrong places.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from envs.errors import UsageError, did_you_mean
from envs.plugins import Plugins
from policies.families.base import Family, Recipe
from policies.families.evocua import EvoCUA, EvoCUAS1
from policies.families.fara import Fara, Fara15
from policies.families.gui_owl import GUIOwl, GUIOwl15
from policies.families.mai_ui import MAIUI
from policies.families.opencua import OpenCUA, OpenCUARelative, OpenCUAV1
from policies.families.plain import Plain
from policies.families.qwen3_vl import Qwen3VL
from policies.families.ui_tars import UITars1, UITars15, UITarsDoubao
from policies.families.ui_venus import UIVenus15

log = logging.getLogger(__name__)

FAMILIES = Plugins("family", "agentlab.families")
OURS: tuple[type[Family], ...] = (
    UITars1, UITars15, UITarsDoubao, Qwen3VL, EvoCUA, EvoCUAS1, GUIOwl15, GUIOwl, OpenCUA, OpenCUAV1, OpenCUARelative, Fara, Fara15,
    MAIUI, UIVenus15, Plain,
)  # fmt: skip

LEFT_OUT: Mapping[str, str] = {
    r"holo[-_.]?\d.*|holo-.*": "H Company says how Holo's replies are laid out, but not with which tools and prompt its scores were made.",
    r"ui-?venus.*": "UI-Venus 1.0's prompt cannot be read from its repository any more; UI-Venus-1.5 is supported.",
    r"ui-?tars-?2.*": "UI-TARS-2 is not open.",
    r"gta1.*|jedi.*|os-atlas.*": "It locates elements and plans nothing: there is no agent's prompt for it.",
}
"""Models that people may name but that no family here fits, with the reason."""


@functools.cache
def families() -> dict[str, Family]:
    """All families by name: this package's, and those installed under the entry-point group ``agentlab.families``."""
    found = {cls.name: cls() for cls in OURS}
    for name in FAMILIES.installed():
        try:
            made = FAMILIES.load(name)()
        except Exception as error:  # noqa: BLE001 — a stranger's package: it must not break the others
            log.warning("The family %s is left out: %s", name, error)
            continue
        if isinstance(made, Family):
            found.setdefault(made.name, made)
        else:
            log.warning("The family %s is left out: it is not a policies.families.base.Family", name)
    return found


def family_named(name: str) -> Family:
    """The family that ``model.family`` names.

    Raises:
        UsageError: there is no such family.
    """
    known = families()
    if name not in known:
        raise UsageError(f"Unknown family {name!r}.", did_you_mean(name, known, what="family"))
    return known[name]


def checkpoints() -> dict[str, str]:
    """Policy name -> hub repository, of every family."""
    return {name: source for family in families().values() for name, source in family.checkpoints.items()}


def recipes() -> dict[str, Recipe]:
    """Every recipe by its name."""
    return {recipe.name: recipe for family in families().values() for recipe in family.recipes}


def choose(name: str, *, said: Iterable[str] = (), declared: str | None = None, asked: str | None = None) -> Family:
    """The family of a policy.

    Args:
        name: The policy as the user wrote it: a known name, a folder, a hub id, an endpoint's model.
        said: What the checkpoint says of itself: other names of it.
        declared: The family that its ``agentlab.json`` declares.
        asked: ``model.family``.

    Raises:
        UsageError: unknown, or none can be told.
    """
    if asked or declared:
        return family_named(asked or declared or "")
    for number, candidate in enumerate((name, *said)):
        short = re.split(r"[/\\]", candidate.strip().rstrip("/\\"))[-1].lower().replace("_", "-")
        for family in families().values():
            if family.general and number:
                continue  # its fine-tunes name it as their base, and have to be asked in another way
            if candidate in family.checkpoints or candidate in family.checkpoints.values() or family.recognised.fullmatch(short):
                return family
        reason = next((reason for pattern, reason in LEFT_OUT.items() if re.fullmatch(pattern, short)), None)
        if reason:
            raise UsageError(f"{name} is not supported: {reason}", REMEDY.format(known=", ".join(families())))
    raise UsageError(
        f"No family of models is known for {name}: how it wants to be asked cannot be told from its architecture.",
        REMEDY.format(known=", ".join(families())),
    )


REMEDY = "If you know better, say which family it is: --set model.family=NAME, one of {known}."


def described(family: Family) -> dict[str, Any]:
    """A family's facts for a table: JSON-serialisable."""
    return {
        "name": family.name,
        "title": family.title,
        "platforms": list(family.platforms),
        "architectures": sorted(family.architectures),
        "policies": sorted(family.checkpoints),
        "coordinates": family.defaults.coordinates,
        "sources": [str(source) for source in family.sources],
        "limits": list(family.limits),
    }
