"""What a judge said, beside what the grader found (``adapt.words.credit=judge``, ``env.feedback=judge``)."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable

from agentlab.disk.row import JudgeColumns, Row
from agentlab.results.pages import Section


def judge_section(rows: Iterable[Row], threshold: float) -> Section:
    """Accepted and not, against right and wrong by the grader, and what the judge cost.

    Args:
        rows: Of the run.
        threshold: Score from which the grader finds an attempt right.
    """
    heard = [(row.judge, (row.score or 0.0) >= threshold) for row in rows if row.graded and row.judge is not None]
    lines = []
    for label, some in (("right", [j for j, right in heard if right]), ("wrong", [j for j, right in heard if not right])):
        if some:
            lines.append((f"{label} by the grader", *_line(some)))
    if heard:
        lines.append(("all", *_line([j for j, _ in heard])))
    agree = sum(j.accepted == right for j, right in heard)
    note = f"The judge and the grader agree on {agree} of {len(heard)} attempts." if heard else ""
    errors = Counter(j.error for j, _ in heard if j.error)
    note += "".join(f" Without a score, {n} times: {error}" for error, n in errors.most_common(3))
    header = ("attempts", "judged", "accepted", "mean score", "no score", "seconds each", "requests", "tokens", "USD")
    return Section("Judge", header, lines, note)


def _line(some: list[JudgeColumns]) -> tuple[str, ...]:
    scores = [j.score for j in some if j.score is not None]
    return (
        str(len(some)),
        str(sum(j.accepted for j in some)),
        f"{statistics.fmean(scores):+.2f}" if scores else "–",
        str(len(some) - len(scores)),
        f"{statistics.fmean(j.seconds for j in some):.2f}",
        str(sum(j.requests for j in some)),
        str(sum(j.tokens for j in some)),
        f"{sum(j.cost for j in some):.4f}",
    )
