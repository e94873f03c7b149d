"""What a method of the weights axis is."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from policies.methods.config import MethodConfig


@dataclass(frozen=True)
class Method:
    """One way to move the weights.

    Attributes:
        config: Its settings; every field has a default and a description.
        update: ``(head, adapter, episode, config, *, seed) -> Learned``, or, of our own methods, where that function is
            (``package.module:function``), so that settings can be read without it.
    """

    config: type[MethodConfig]
    update: Callable[..., Any] | str

    @property
    def rule(self) -> Callable[..., Any]:
        """The update rule itself."""
        if not isinstance(self.update, str):
            return self.update
        module, _, name = self.update.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found
