"""Making the bundled policy: expert screens, two phases of training, a checkpoint with its model card.

``agentlab pretrain`` calls :func:`run_pretrain`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentlab.pretrain.config import PretrainConfig, plan_of

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

__all__ = ["PretrainConfig", "plan_of", "run_pretrain"]


def run_pretrain(config: PretrainConfig, console: Console | None = None) -> Path:
    """See :func:`agentlab.pretrain.pipeline.run_pretrain` (torch and a browser are imported only now)."""
    from agentlab.pretrain.pipeline import run_pretrain as run

    return run(config, console)
