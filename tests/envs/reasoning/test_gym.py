"""The procedural questions: the same ones in every process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")

EVERY = """
import hashlib
from envs.reasoning import gym
print(hashlib.sha256(repr([gym.item(family, seed) for family in gym.FAMILIES for seed in range(20)]).encode()).hexdigest())
"""


def test_every_process_asks_the_same():
    """Sets of texts are read in an order that depends on the process: no family may depend on it."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", EVERY], env=os.environ | {"PYTHONHASHSEED": seed}, stdout=subprocess.PIPE, text=True
        )
        for seed in ("1", "2")
    ]
    said = [process.communicate(timeout=300)[0] for process in started]
    assert said[0] == said[1] and len(said[0].strip()) == 64 and all(process.returncode == 0 for process in started)
