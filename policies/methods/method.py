"""What a method of the weights axis is."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from envs.errors import UsageError
from policies.methods.config import MethodConfig


@dataclass(frozen=True)
class Method:
    """One way to move the weights.

    Attributes:
        config: Its settings; every field has a default and a description.
        update: ``(head, adapter, episode, config, *, seed) -> Learned``, or where that function is (``package.module:function``).
    """

    config: type[MethodConfig]
    update: Callable[..., Any] | str

    @property
    def rule(self) -> Callable[..., Any]:
        """The update rule itself."""
        return imported(self.update) if isinstance(self.update, str) else self.update


def imported(where: str) -> Any:
    """What ``package.module:name`` names.

    Raises:
        UsageError: it cannot be imported.
    """
    module, _, attribute = where.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{where} cannot be imported: {error}.", "Write my.module:name, importable from here.") from error
