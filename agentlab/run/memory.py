"""Peak memory of a run: our own process, its children (the browser) apart, and what the policy knows of the GPU; in MB."""

from __future__ import annotations

import threading

import psutil

from policies.base import Policy

INTERVAL = 1.0
"""Seconds between two samples."""


class MemoryWatch:
    """Samples memory in a thread while used as a context manager."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._peak: dict[str, float] = {}
        self._guard = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(timeout=10 * INTERVAL)

    def peak(self) -> dict[str, float]:
        """Highest values so far: ``rss`` (this process), ``children_rss`` (shared pages counted once per process), the policy's."""
        with self._guard:
            return {name: round(value, 1) for name, value in self._peak.items()}

    def _watch(self) -> None:
        while not self._done.wait(INTERVAL):
            self._sample()

    def _sample(self) -> None:
        this = psutil.Process()
        children = 0
        for child in this.children(recursive=True):
            try:
                children += child.memory_info().rss
            except psutil.NoSuchProcess:  # ended between the two calls
                continue
        now = {"rss": this.memory_info().rss / 2**20, "children_rss": children / 2**20, **self._policy.memory()}
        with self._guard:
            for name, value in now.items():
                self._peak[name] = max(self._peak.get(name, 0.0), value)
