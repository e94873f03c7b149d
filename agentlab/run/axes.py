"""What a preset's name promises, kept: an axis is on only if the preset or the user names its method.

A setting of an axis that is off is refused (it would do nothing, or quietly turn a frozen baseline into something else).  A preset
one of whose methods the user replaces runs under the name of the pair that it has become.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentlab.run.presets import OFF, Preset, presets_with
from envs.errors import UsageError

AXES = ("words", "weights")


def without_replaced(preset: Preset, said: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's settings, but for those of an axis whose method the user replaces: they are another method's."""
    settings = dict(preset.settings)
    adapt = dict(settings["adapt"])
    for axis in AXES:
        method = _section(said, axis).get("method", preset.method(axis))
        if method != preset.method(axis):
            adapt[axis] = {"method": method}
    return settings | {"adapt": adapt}


def honest_name(name: str, preset: Preset, adapt: Mapping[str, Any]) -> str:
    """What the adaptation ``adapt``, made of the preset ``name``, is called."""
    methods = [str(adapt[axis]["method"]) for axis in AXES]
    return name if methods == [preset.method(axis) for axis in AXES] else "+".join(methods)


def refuse_another_schedule(name: str, preset: Preset, adapt: Mapping[str, Any]) -> None:
    """Raises UsageError for the preset ``switch`` that does not switch, and for another one that does; pairs may do either."""
    promised, switches = preset.settings["adapt"].get("switch_at", 0), adapt.get("switch_at", 0)
    if "+" in name or bool(promised) == bool(switches):
        return
    if promised:
        raise UsageError(f"--adapt {name} without adapt.switch_at does not switch.", "--adapt rosa2 has both axes at every update.")
    raise UsageError(
        f"--adapt {name} does not switch from one axis to the other.", f"--adapt switch --set adapt.switch_at={switches} does."
    )


def refuse_settings_of_axes_that_are_off(
    name: str, said: Mapping[str, Any], adapt: Mapping[str, Any], is_default: Callable[[str, Any], bool], *, judged: bool = False
) -> None:
    """Raises UsageError if the user sets something that would do nothing.

    Args:
        name: Of the adaptation.
        said: What the user says, as nested settings.
        adapt: The resolved section.
        is_default: Whether a value is the default of a setting given by its dotted name: saying so is allowed.
        judged: A judge, the words' engine, says when a session ends, whatever is learned.
    """
    on = {axis: adapt[axis].get("method") != OFF for axis in AXES}
    for key, value in _said(said):
        if is_default(key, value):
            continue
        needs = _needs(key, graded=judged or (on["weights"] and adapt["words"].get("credit", "sparse") != "sparse"))
        lacking = [axis for axis in needs if not on[axis]]
        if lacking:
            raise UsageError(
                f"{key} is a setting of the {' and the '.join(needs)}, and --adapt {name} does not change the {lacking[0]}.",
                f"Choose one that does: --adapt {presets_with(*needs)}.",
            )


def _needs(key: str, *, graded: bool) -> tuple[str, ...]:
    """The axes without which a setting does nothing; ``graded``: the weights learn from credit that the words' engine gives."""
    if key in {"adapt.switch_at", "adapt.switch_first", "adapt.score_under"}:
        return AXES
    if key == "adapt.words.credit" or key.startswith("adapt.weights."):
        return ("weights",)
    return () if graded and key != "adapt.words.max_chars" else ("words",)


def _said(said: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every setting of the adaptation that the user names, but for the preset and the methods."""
    adapt = said.get("adapt", {})
    for key, value in adapt.items():
        if key in AXES:
            yield from ((f"adapt.{key}.{name}", v) for name, v in value.items() if name != "method")
        elif key != "preset":
            yield f"adapt.{key}", value


def _section(said: Mapping[str, Any], axis: str) -> Mapping[str, Any]:
    found = said.get("adapt", {}).get(axis, {})
    return found if isinstance(found, Mapping) else {}
