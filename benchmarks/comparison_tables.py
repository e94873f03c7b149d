"""The tables of a comparison (``comparison.py``) as Markdown, from its stored outcomes."""

from __future__ import annotations

from collections.abc import Sequence

from formats import markdown_table, number, share
from measures import Difference, Made, by_chance, cpu_per_solved, difference, price, replies
from measures import share as solved_share
from outcomes import Outcome
from studies import Study

from agentlab.results.resampling import Interval

REFERENCES = ("next-best", "no-repeat")
"""What every method is compared with, where it was run."""


def columns(attempts: int) -> tuple[int, ...]:
    """The k shown with an interval in the main table."""
    return tuple(k for k in (2, 3, 5, 10) if k <= attempts)


def main_table(made: Made) -> str:
    """Solved within k, and both uplifts: of the failing first attempts, and in points over all instances."""
    last = made.attempts
    rows, ks = [], columns(last)
    for name, found in made.methods.items():
        about = made.about["methods"][name]
        uplift = solved_share(found, last)[0]
        whole = "–" if made.partial(name) else share((1 - made.first_success) * uplift)
        within = [span(*solved_share(found, k)) for k in ks]
        rows.append((f"`{name}`", ", ".join(about["uses"]), f"{len(found)}/{about['wanted']}", *within, share(uplift), whole))
    uplifts = (f"uplift @{last}, % of failed", f"uplift @{last}, points of all (extrapolated)")
    return markdown_table(("method", "learns from", "n", *(f"@{k}" for k in ks), *uplifts), rows)


def every_k(made: Made) -> str:
    """@1 … @K.  At attempt 1 nobody has solved anything: these are the instances that it failed."""
    ks = range(2, made.attempts + 1)
    rows = [(f"`{name}`", "0", *(span(*solved_share(found, k)) for k in ks)) for name, found in made.methods.items()]
    return markdown_table(("method", "@1", *(f"@{k}" for k in ks)), rows)


def price_table(made: Made) -> str:
    """Attempts, forward passes, prefills and CPU seconds per solved instance."""
    rows = []
    for name, found in made.methods.items():
        cells = []
        for k in sorted({min(5, made.attempts), made.attempts}):
            p = price(found, k)
            cells += [number(p.attempts, 1), number(p.forward, 0), number(p.prefill, 1)]
        rows.append((f"`{name}`", str(len(found)), *cells, number(cpu_per_solved(made, name), 1)))
    ks = sorted({min(5, made.attempts), made.attempts})
    header = [f"{what} @{k}" for k in ks for what in ("attempts", "forward passes", "prefills")]
    return markdown_table(("per solved instance", "n", *header, f"CPU seconds @{made.attempts}"), rows)


def versus_table(made: Made, reference: str) -> str:
    """Paired differences to one method; a method that is for some tasks only is compared over those."""
    rows = []
    for name, found in made.methods.items():
        if name == reference:
            continue
        of_each = [difference(made.methods[reference], found, k) for k in columns(made.attempts)]
        first = next((d for d in of_each if d is not None), None)
        if first is not None:
            rows.append((f"`{name}`", f"{first.n}, {first.clusters}", *(_points(d) for d in of_each)))
    return markdown_table((f"minus `{reference}`", "n, clusters", *(f"@{k}" for k in columns(made.attempts))), rows)


def cluster_table(made: Made, study: Study, guesses: dict[str, int]) -> str:
    """Solved within 5 per task or family, with what guessing would solve."""
    k = min(5, made.attempts)
    names = sorted({o.name for found in made.methods.values() for o in found})
    rows = []
    for name in names:
        failing = len({o.instance for found in made.methods.values() for o in found if o.name == name})
        chance = f"{100 * by_chance(guesses[name], k):.0f} % of {guesses[name]}" if guesses.get(name) else "–"
        rows.append((name, str(failing), chance, *(_of_cluster(found, name, k) for found in made.methods.values())))
    header = ("task" if study.suite == "miniwob" else "family", "failing", f"by guessing @{k}", *(f"`{m}`" for m in made.methods))
    return markdown_table(header, rows)


def replies_table(made: Made) -> str:
    """What the retries were, and what the updates came to."""
    rows = []
    for name, found in made.methods.items():
        r = replies(found)
        updates = f"{r['accepted']:.0f}/{r['updates']:.0f}" if r["updates"] else "–"
        cells = (share(r["repeats"]), share(r["unparsable"]), number(r["redrawn"]), updates, f"{r['machinery']:.0f}")
        rows.append((f"`{name}`", *cells))
    header = (
        "method",
        "same as an earlier attempt %",
        "not an answer %",
        "redrawn per reply",
        "updates accepted",
        "ended by machinery",
    )
    return markdown_table(header, rows)


def theorem_table(made: Made) -> str:
    """ROSA2 Theorem 4.1: how often both error terms are smaller under the refined context; "" if nobody measured them."""
    rows = []
    for name, found in made.methods.items():
        terms = [t for o in found for t in o.theorem if t is not None]
        if terms:
            median = [f"{sorted(t[i] for t in terms)[len(terms) // 2]:.3g}" for i in range(4)]
            held = [share(sum(t[i + 2] < t[i] for t in terms) / len(terms)) for i in range(2)]
            rows.append((f"`{name}`", str(len(terms)), median[0], median[2], held[0], median[1], median[3], held[1]))
    header = ("method", "updates", "‖R‖", "‖R‖ refined", "smaller %", "‖Δθ‖²", "‖Δθ‖² refined", "smaller %")
    return markdown_table(header, rows) if rows else ""


def settings_table(made: Made) -> str:
    """What each row was run with, and out of how many swept lines it was chosen."""
    rows = []
    for name in made.methods:
        about = made.about["methods"][name]
        lines, swept = about["lines"], f"{about['swept']} of {about['lines']}"
        swept = "–" if lines == 1 else swept if about["swept"] else f"0 of {lines}: the first"
        rows.append((f"`{name}`", f"`{about['preset']}`", " ".join(f"`{s}`" for s in about["sets"]), swept, about["commit"]))
    return markdown_table(("method", "preset", "set", "chosen from, of its lines", "code"), rows)


def span(mean: float, interval: Interval) -> str:
    """Mean and interval in percent."""
    return f"{share(mean)} ({share(interval[0])}–{share(interval[1])})"


def _points(d: Difference | None) -> str:
    if d is None:
        return "–"
    low, high = d.interval
    return f"{100 * d.points:+.1f} ({100 * low:+.1f}…{100 * high:+.1f}), p={d.p:.2g}, {d.won}/{d.lost}"


def _of_cluster(found: Sequence[Outcome], name: str, k: int) -> str:
    these = [o for o in found if o.name == name]
    return f"{sum(o.within(k) for o in these)}/{len(these)}" if these else "–"
