"""How replies are drawn, by name, and the seeds of the draws.  (The drawing itself is in ``sampler.py``, which needs torch.)"""

from __future__ import annotations

import hashlib

from policies.base import SamplingConfig

PRESETS: dict[str, SamplingConfig] = {
    # The official OSWorld runner's defaults; ZeroGUI's evaluation of UI-TARS-7B-DPO.
    "official": SamplingConfig(temperature=1.0, top_p=0.9, max_new_tokens=1500, frequency_penalty=1.0),
    "zerogui": SamplingConfig(temperature=0.0, top_p=0.9, max_new_tokens=1500, frequency_penalty=1.0),
    "greedy": SamplingConfig(),
}
"""Named sampling settings."""


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything that names a draw, e.g. (run seed, task id, attempt, step, redraw)."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
