"""Adapters of the language-model head, by name.  One file each; an adapter is added by one :func:`register` call.

A class here is everything that the weights axis knows of an adapter: its zero, its logits, its derivatives, how it is moved, cut
back, saved and read (:class:`policies.adapters.base.HeadAdapter`).  No code outside asks which adapter it has.  This module
itself needs no torch: a configuration can be checked without it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from envs.errors import StoreError, UsageError, did_you_mean

if TYPE_CHECKING:
    from policies.adapters.base import HeadAdapter

_WHERE: dict[str, str] = {}


def register(name: str, where: str) -> None:
    """Make the adapter class at ``where`` (``package.module:Class``) known as ``adapt.weights.mode=name``."""
    _WHERE[name] = where


register("lora", "policies.adapters.lora:LoRAHead")
register("hidden", "policies.adapters.hidden:HiddenShift")


def names() -> tuple[str, ...]:
    """The adapters there are."""
    return tuple(_WHERE)


def check_name(name: str) -> str:
    """``name``, if there is such an adapter.

    Raises:
        UsageError: there is no such adapter.
    """
    if name not in _WHERE:
        raise UsageError(f"There is no adapter {name!r}.", did_you_mean(name, _WHERE, what="adapter"))
    return name


def adapter_class(name: str) -> type[HeadAdapter]:
    """The class of the adapter ``name``.

    Raises:
        UsageError: there is no such adapter.
    """
    module, _, attribute = _WHERE[check_name(name)].partition(":")
    found: type[HeadAdapter] = getattr(importlib.import_module(module), attribute)
    return found


def load_adapter(folder: Path, device: str = "cpu") -> HeadAdapter:
    """What :meth:`HeadAdapter.save` of any adapter wrote into ``folder``.

    Raises:
        StoreError: there is no adapter in it, or it cannot be read.
    """
    kinds = [adapter_class(name) for name in _WHERE]
    for kind in kinds:
        if (folder / kind.FILE).exists():
            try:
                return kind.load(folder, device)
            except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError) as error:
                what = f"{type(error).__name__}: {error}"
                raise StoreError(f"{folder / kind.FILE} is not an adapter as this version writes it ({what}).") from error
    raise StoreError(f"{folder} holds no adapter.", f"Expected {' or '.join(kind.FILE for kind in kinds)} in it.")
