"""Counters in Prometheus' text format: the few of the weights axis, beside vLLM's own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

PREFIX = "agentlab_"


class Metrics:
    """Counters, gauges and summaries by name and labels."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        self._about: dict[str, tuple[str, str]] = {}

    def add(self, name: str, value: float, about: str, **labels: str) -> None:
        """Count up."""
        with self._lock:
            self._about[name] = ("counter", about)
            family = self._values.setdefault(name, {})
            key = tuple(sorted(labels.items()))
            family[key] = family.get(key, 0.0) + value

    def set(self, name: str, value: float, about: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._about[name] = ("gauge", about)
            self._values[name] = {(): value}

    def observe(self, name: str, seconds: float, about: str) -> None:
        """One more of what takes time: its sum and its count."""
        with self._lock:
            self._about[name] = ("summary", about)
            family = self._values.setdefault(name, {})
            for key, value in (("sum", seconds), ("count", 1.0)):
                family[(("", key),)] = family.get((("", key),), 0.0) + value

    @contextlib.contextmanager
    def timed(self, name: str, about: str) -> Iterator[None]:
        """Observe how long the block takes."""
        started = time.perf_counter()
        yield
        self.observe(name, time.perf_counter() - started, about)

    def render(self) -> str:
        """All of them, as a scrape takes them."""
        with self._lock:
            lines = []
            for name, family in self._values.items():
                kind, about = self._about[name]
                lines += [f"# HELP {PREFIX}{name} {about}", f"# TYPE {PREFIX}{name} {kind}"]
                for labels, value in family.items():
                    if labels and not labels[0][0]:
                        lines.append(f"{PREFIX}{name}_{labels[0][1]} {value:g}")
                    else:
                        words = ",".join(f'{key}="{text}"' for key, text in labels)
                        lines.append(f"{PREFIX}{name}{{{words}}} {value:.12g}" if words else f"{PREFIX}{name} {value:.12g}")
            return "\n".join(lines) + "\n"
