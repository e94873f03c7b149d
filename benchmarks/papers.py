"""The papers' tables and curves from any runs of this product: any suite, any model, any method.

    python benchmarks/papers.py runs/* --out papers

Runs of one suite and one policy are rows of one table.  ``papers.md`` has, where the runs have what they need:

    accuracy over turns, and over seconds          ROSA Table 1, Figure 6; ROSA2 Table 1, Figures 2a, 3, 4
    both definitions of uplift                     ROSA Table 2; ROSA2 Table 2
    seconds and memory                             ROSA Table 10; ROSA2 Table 4
    what the weights learn from                    ROSA Table 8 (+R, +M)
    training baselines                             ROSA Table 9 (benchmarks/training.py)

and the figures ``turns-*.png`` and ``seconds-*.png``.  Every number is of the runs' rows; nothing is extrapolated.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from formats import markdown_table, number, share

from agentlab.disk.names import digest
from agentlab.disk.row import Row
from agentlab.disk.runs import Run, read_run
from agentlab.results import figures
from agentlab.results.metrics import (
    SessionSummary,
    Summary,
    ended_sessions,
    peak_memory,
    solved_by_seconds,
    success_bands,
    summarize,
)

MB = 2**20


@dataclass(frozen=True)
class Line:
    """One run as a row of the tables."""

    run: Run

    @cached_property
    def summary(self) -> Summary:
        return summarize(self.run.rows, attempts=self.run.attempts)

    @cached_property
    def found(self) -> list[SessionSummary]:
        return ended_sessions(self.run.rows)

    @cached_property
    def graded(self) -> list[Row]:
        return [row for row in self.run.rows if row.graded]

    @property
    def group(self) -> tuple[str, str]:
        """Suite and policy; a policy that was trained here stands beside the one it was trained from."""
        return str(self.run.config.get("suite", "?")), str(self.trained.get("policy") or self.run.config.get("policy", "?"))

    @cached_property
    def trained(self) -> dict[str, Any]:
        """What benchmarks/training.py wrote beside the checkpoint that the run is of; nothing for other policies."""
        file = Path(str(self.run.config.get("policy", ""))) / "training.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    @property
    def label(self) -> str:
        """The method, as the title of the run has it, with what tells it from others: history, the reward, a training."""
        parts = [self.run.title.split(" · ")[2] if self.run.title.count(" · ") >= 2 else self.run.title]
        if self.trained:
            parts.insert(0, f"{self.trained.get('method', '?')} +")
        if self.run.config.get("history") == "conversation":
            parts.append("in a conversation")
        return " ".join(parts)

    @property
    def reward(self) -> str:
        adapt = self.run.config.get("adapt")
        words = adapt.get("words", {}) if isinstance(adapt, dict) else {}
        return str(words.get("credit", "sparse"))


def tables(lines: Sequence[Line]) -> Iterator[tuple[str, str, str]]:
    """(heading, remark, table) of the runs of one suite and policy."""
    yield (
        "Accuracy over turns",
        "Shares solved within k attempts, of the sessions that have ended, with 95 % intervals over task names.",
        turns(lines),
    )
    yield "Accuracy over seconds", "Shares solved within so many seconds of a session, learning included.", over_seconds(lines)
    yield (
        "Uplift",
        "Corrected: solved later, of those that failed at attempt 1. Gained: success@T − success@1, in points; relative: over success@1.",
        uplift(lines),
    )
    yield (
        "Seconds and memory",
        "Means per attempt; words and weights also as shares of acting, over the attempts that were learned from; hidden: seconds of an "
        "update that passed beside the next reset and prompt. Peak: of the process.",
        costs(lines),
    )
    if len({line.reward for line in lines}) > 1:
        yield "What the weights learn from", "sparse: +R; judge: +M; critique: read off what visibly happened.", rewards(lines)
    if any(line.trained for line in lines):
        yield (
            "Training baselines",
            "Seconds of training are spent before the first question; of the others, there are none.",
            training(lines),
        )


def turns(lines: Sequence[Line]) -> str:
    most = max(line.run.attempts for line in lines)
    rows = []
    for line in lines:
        bands = success_bands(line.found, line.run.attempts)
        cells = [f"{100 * s:.1f} ({100 * low:.1f}–{100 * high:.1f})" for s, (low, high) in bands]
        rows.append((f"`{line.label}`", str(len(line.found)), *cells, *[""] * (most - len(cells))))
    return markdown_table(("method", "sessions", *(f"@{k}" for k in range(1, most + 1))), rows)


def over_seconds(lines: Sequence[Line]) -> str:
    longest = max((s.seconds for line in lines for s in line.found), default=0.0)
    at = [longest / 2**n for n in reversed(range(7))]
    rows = [(f"`{line.label}`", *(share(s) for s in solved_by_seconds(line.found, at))) for line in lines if line.found]
    return markdown_table(("method", *(f"≤{t:.3g} s" for t in at)), rows)


def uplift(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        s = line.summary
        first = s.success_at[0]
        corrected = round((s.correction_uplift or 0) * s.failed_first)
        gained = s.points_gained or 0.0
        relative = f"{100 * gained / first:+.1f} %" if first else "–"
        rows.append(
            (f"`{line.label}`", share(first), share(s.success_at[-1]), f"{corrected} of {s.failed_first}",
             "–" if s.correction_uplift is None else share(s.correction_uplift), f"{100 * gained:+.1f}", relative)
        )  # fmt: skip
    return markdown_table(("method", "@1", "@T", "corrected", "% corrected", "gained", "relative"), rows)


def costs(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        s, learned = line.summary, [row for row in line.graded if row.update is not None]
        acting = statistics.fmean(row.seconds.acting for row in learned) if learned else 0.0
        parts = {
            part: statistics.fmean(getattr(row.seconds, part) for row in learned) if learned else 0.0
            for part in ("words", "weights")
        }
        parts["weights"] += s.hidden_seconds or 0.0  # all of an update, whatever it passed beside
        adapters = [float(row.update.numbers.get("adapter_mb") or 0.0) for row in learned if row.update is not None]
        rows.append(
            (f"`{line.label}`", str(len(line.graded)), *(number(s.seconds_per_attempt[p], 3) for p in s.seconds_per_attempt),
             *(f"{100 * v / acting:.1f}" if acting else "–" for v in parts.values()), number(s.hidden_seconds, 3),
             f"{sum(row.forward_passes for row in line.graded) / max(1, len(line.graded)):.0f}",
             number(max(adapters, default=0.0), 2), number(max(peak_memory(line.graded).values(), default=None), 0))
        )  # fmt: skip
    header = ("method", "attempts", *(f"{p} s" for p in lines[0].summary.seconds_per_attempt), "words %", "weights %", "hidden s",
              "passes", "adapter MB", "peak MB")  # fmt: skip
    return markdown_table(header, rows)


def rewards(lines: Sequence[Line]) -> str:
    rows = [
        (
            line.reward,
            f"`{line.label}`",
            share(line.summary.success_at[0]),
            share(line.summary.success_at[-1]),
            f"{100 * (line.summary.points_gained or 0):+.1f}",
        )
        for line in sorted(lines, key=lambda line: line.reward)
    ]
    return markdown_table(("reward", "method", "@1", "@T", "gained"), rows)


def training(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        seconds = line.trained.get("seconds")
        per = line.summary.seconds_per_session
        rows.append(
            (f"`{line.label}`", number(seconds, 0) if seconds else "0", str(line.trained.get("examples", "–")), number(per, 2),
             share(line.summary.success_at[0]), share(line.summary.success_at[-1]))
        )  # fmt: skip
    return markdown_table(("method", "training s", "examples", "s per session", "@1", "@T"), rows)


def write(runs: Sequence[Run], out: Path) -> Path:
    """``papers.md`` and its figures; returns the page."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for run in runs:
        line = Line(run)
        if line.found:
            groups.setdefault(line.group, []).append(line)
    out.mkdir(parents=True, exist_ok=True)
    page = ["# Tables and curves", ""]
    for (suite, policy), lines in sorted(groups.items()):
        mark = digest(f"{suite}/{policy}")[:8]
        page += [f"## {suite} · {policy}", "", *(f"- `{line.label}`: {line.run.folder}" for line in lines), ""]
        labels = [
            f"{line.label} ({n})" if [x.label for x in lines].count(line.label) > 1 else line.label
            for n, line in enumerate(lines, 1)
        ]
        bands = {label: success_bands(line.found, line.run.attempts) for label, line in zip(labels, lines, strict=True)}
        figures.success_curve(bands, out / f"turns-{mark}.png", title=f"{suite} · {policy}")
        figures.success_over_seconds(
            {n: line.found for n, line in zip(labels, lines, strict=True)}, out / f"seconds-{mark}.png", title=f"{suite} · {policy}"
        )
        for heading, remark, table in tables(lines):
            page += [f"### {heading}", "", remark, "", table, ""]
            if heading.startswith("Accuracy over"):
                page += [f"![{heading}]({heading.split()[-1]}-{mark}.png)", ""]
    file = out / "papers.md"
    file.write_text("\n".join(page), encoding="utf-8")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--out", type=Path, default=Path("papers"))
    asked = parser.parse_args()
    print(write([read_run(folder) for folder in asked.runs if (folder / "config.json").is_file()], asked.out))


if __name__ == "__main__":
    main()
