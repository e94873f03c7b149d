"""``adapt.weights``: the methods by name, and the settings of each.  None of this needs torch: rules are imported at first use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envs.errors import UsageError, did_you_mean
from envs.plugins import Plugins, is_module_name
from policies.methods import Method
from policies.methods.config import NoneConfig, WeightsConfig
from policies.rl.config import RLConfig
from policies.rosa.config import RosaConfig
from policies.slot.config import SlotConfig

_METHODS: dict[str, Method] = {}
_PLUGINS = Plugins("method of the weights", "agentlab.methods")
"""Methods of installed packages, and those named as ``my.module:method``."""


def register(name: str, method: Method) -> None:
    """Make ``method`` known as ``adapt.weights.method=name``."""
    _METHODS[name] = method


register("rosa", Method(RosaConfig, "policies.rosa.step:rosa_step"))
register("rl", Method(RLConfig, "policies.rl.step:policy_gradient_step"))
register("slot", Method(SlotConfig, "policies.slot.step:slot_step"))
OURS = tuple(_METHODS)
"""Methods of this package: the only ones that a name from elsewhere may choose."""


def method_named(name: str) -> Method:
    """The method ``name``: one of ours, of an installed package, or ``my.module:method``.

    Raises:
        UsageError: there is no such method, or it is not one.
    """
    if name not in _METHODS:
        if name not in _PLUGINS.installed() and not is_module_name(name):
            known = (*_METHODS, *_PLUGINS.installed(), "none")
            raise UsageError(f"There is no method {name!r}.", did_you_mean(name, known, what="method") + " Or my.module:method.")
        found = _PLUGINS.load(name)
        if not isinstance(found, Method):
            raise UsageError(
                f"{name} is a {type(found).__name__}, not a method.", "It must be a policies.methods.Method(config, update)."
            )
        register(name, found)
    return _METHODS[name]


def config_classes() -> tuple[type[WeightsConfig], ...]:
    """The settings of every method known so far."""
    return (NoneConfig, *(method.config for method in _METHODS.values()))


def config_of(settings: WeightsConfig | Mapping[str, Any]) -> WeightsConfig:
    """``settings`` (with ``method``, by default ``none``) as the config of their method.

    Raises:
        UsageError: there is no such method, or it has no such setting.
        pydantic.ValidationError: a bad value.
    """
    if isinstance(settings, WeightsConfig):
        return settings
    name = str(settings.get("method", "none"))
    chosen: type[WeightsConfig] = NoneConfig if name == "none" else method_named(name).config
    for key in settings:
        if key not in chosen.model_fields:
            raise UsageError(f"The method {name!r} has no setting {str(key)!r}.", _whose(str(key), chosen))
    return chosen.model_validate({**settings, "method": name})


def _whose(key: str, chosen: type[WeightsConfig]) -> str:
    """Which method's setting ``key`` is; else the nearest setting of the chosen one."""
    owners = [name for name, method in _METHODS.items() if key in method.config.model_fields]
    if owners:
        return f"It is a setting of {' and '.join(owners)}: choose one with adapt.weights.method."
    return did_you_mean(key, list(chosen.model_fields), what="setting")
