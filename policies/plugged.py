"""Policies that others bring: ``my.module:MyPolicy``, or by name from an installed package (entry points ``agentlab.policies``).

What is named is a :class:`~policies.base.Policy`, a subclass of it, or a function that returns one.  A class or function is called with
those of the following that it has parameters for: ``name`` (what stands behind ``--policy``), ``sampling`` (how replies are drawn, a
:class:`~policies.sampling.SamplingConfig`), and every setting ``model.KEY`` as ``KEY=``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from envs.base import Modality
from envs.errors import LabError, PolicyError, UsageError, did_you_mean
from envs.plugins import Plugins, is_module_name
from policies.base import Policy
from policies.sampling import SamplingConfig

PLUGINS = Plugins("policy", "agentlab.policies")
GIVEN = ("name", "sampling")
"""What a class or function gets that is not a setting of the user's."""


def is_plugged(name: str) -> bool:
    """Whether the policy ``name`` is one that others bring."""
    return is_module_name(name) or name in PLUGINS.installed()


def needs_of(name: str) -> frozenset[Modality]:
    """What an observation must have for the policy, before it is made; nothing where a function makes it, which does not say.

    Raises:
        UsageError: there is no such policy, or it is broken.
    """
    return frozenset(getattr(PLUGINS.load(name), "needs", ()))


def asks_of(name: str) -> Mapping[str, Any]:
    """What the policy asks of its environments, before it is made; nothing where a function makes it, which does not say.

    Raises:
        UsageError: there is no such policy, or it is broken.
    """
    asked = getattr(PLUGINS.load(name), "env_options", None)
    return asked if isinstance(asked, Mapping) else {}  # of a class it may be a property, which says nothing yet


def load_plugged(name: str, sampling: SamplingConfig, options: Mapping[str, Any]) -> Policy:
    """The policy that ``name`` names.

    Raises:
        UsageError: there is no such policy, it is not a policy, or it has no such option.
        PolicyError: it fails when it is made.
    """
    check_plugged(name, options)
    found = PLUGINS.load(name)
    policy: Any = found if isinstance(found, Policy) else _made(found, name, {"name": name, "sampling": sampling}, options)
    if not isinstance(policy, Policy):
        raise UsageError(f"{name} gives a {type(policy).__name__}, not a policy.", "It must be a subclass of policies.base.Policy.")
    if not hasattr(policy, "name"):
        policy.name = name
    return policy


def check_plugged(name: str, options: Mapping[str, Any]) -> None:
    """Refuse, before it is made, what is not a policy or does not have these options.

    Raises:
        UsageError: it is not, or does not.
    """
    found = PLUGINS.load(name)
    if isinstance(found, Policy):
        if options:
            raise UsageError(f"The policy {name!r} is made already and takes no options.", "Name its class to set model.KEY.")
        return
    if not callable(found):
        raise UsageError(f"{name} is a {type(found).__name__}, not a policy.", "Make it a subclass of policies.base.Policy.")
    if inspect.isclass(found) and not issubclass(found, Policy):
        raise UsageError(f"{name} is the class {found.__name__}, not a policy.", "Make it a subclass of policies.base.Policy.")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise UsageError(f"The policy {name} lacks {missing}.", "policies/base.py says what a policy has.")
    parameters, known, takes_all = _parameters(found)
    settings = [parameter for parameter in known if parameter not in GIVEN]
    for option in options:
        if option in GIVEN or (option not in known and not takes_all):
            hint = did_you_mean(option, settings, what="option") if settings else "It has none."
            raise UsageError(f"The policy {name!r} has no option {option!r}.", hint)
    wanted = [p.name for p in parameters if p.default is p.empty and p.name in settings and p.name not in options]
    if wanted:
        raise UsageError(f"The policy {name!r} needs {', '.join(wanted)}.", f"Give it: --set model.{wanted[0]}=VALUE.")


def _parameters(make: Any) -> tuple[list[inspect.Parameter], list[str], bool]:
    """Of what makes a policy: its parameters, the names of those that may be given, and whether it takes any other."""
    parameters = list(inspect.signature(make).parameters.values())
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return parameters, known, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _made(make: Any, name: str, given: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Call what makes the policy with what it has parameters for."""
    _, known, takes_all = _parameters(make)
    arguments = {key: value for key, value in given.items() if key in known or takes_all}
    try:
        return make(**arguments, **options)
    except LabError:
        raise
    except Exception as error:  # a stranger's code
        raise PolicyError(f"The policy {name} cannot be made: {type(error).__name__}: {error}") from error
