"""Tables and figures of the measured claims, from ``benchmarks/results/*.json`` alone; nothing is run.

    python benchmarks/report.py

Writes ``docs/results.md`` and ``docs/img/*.png``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from formats import markdown_table, number, points, share
from options import fingerprint
from report_comparison import headline, part, told_apart
from report_experience import experience
from studies import STUDIES, Study

Json = dict[str, Any]
HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results", HERE.parent / "docs"


# -- adaptation --------------------------------------------------------------------------------------------------------------------
def conclusion() -> str:
    """What a reader should take away: one table, and three sentences; every number from the stored results."""
    better, worse = told_apart(TOLD, RESULTS, 5)
    return CONCLUSION.format(
        table=headline(_shown(), RESULTS, 5),
        better=f"only {' and '.join(better)} {_is(better)}" if better else "no adaptation of ours is",
        worse=f"; {' and '.join(worse)} {_is(worse)} worse" if worse else "",
    )


def _shown() -> list[tuple[Study, tuple[str, ...]]]:
    """The methods of the conclusion's table and of the figures."""
    return [(study, (*TRIED_AGAIN.get(study.name, ()), *names)) for study, names in TOLD]


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


TOLD = (
    (STUDIES["reasoning"], ("rosa-reply", "next-best, consistent", "rosa2 (words: rules)")),
    (STUDIES["miniwob"], ("rosa", "textgrad (words: rules)", "rosa2 (words: rules)", "rosa-paper")),
)
"""What the conclusion is about: the weights, the words and the pair, of each study, and the opponent that uses as much as they do."""
TRIED_AGAIN = {"reasoning": ("best-of-k", "greedy conversation"), "miniwob": ("best-of-k",)}
"""What is shown beside them: the frozen policy, nothing of which is kept from repeating itself."""
BEGIN, END = "<!-- made by benchmarks/report.py -->", "<!-- end of what it made -->"
CONCLUSION = """\
The opponent that counts is a frozen policy that is only kept from giving the same answer again (`best-of-k` is not kept from it). Solved
within five attempts, of the instances that the greedy first attempt fails; differences in points, paired, with 95 % intervals that resample
whole tasks; forward passes per solved instance, relative to `next-best`. The policies are `smollm2-135m` and, on MiniWoB++, `ui-tars-nano`:

{table}
Against it {better} better beyond its interval{worse}. Where all that is known is that the attempt failed, one bit excludes one answer and
hardly more: what is gained by learning from it is gained as well by not repeating oneself. These are small policies on procedural tasks,
and the words are fixed sentences of ours (engine `rules`), so that nothing here says what a language model's critique would add.

(`rosa-reply` is `--adapt rosa` with a whole reply as its target; the settings of every row are in docs/results.md.)
"""


# -- the other results -------------------------------------------------------------------------------------------------------------
def _of_other_weights(data: Json) -> list[str]:
    """Says so where a result was measured on weights that the bundled policy no longer has."""
    now = fingerprint(data["policy"])
    if data["weights"] == now:
        return []
    return [
        f"**Measured on earlier weights of this policy** (`{data['weights']}`; the bundled ones are `{now}`, trained further, on more "
        "tasks): not repeated on them yet.\n"
    ]


def transfer(data: Json) -> str:
    """Help and harm at other instances."""
    rows = [
        (
            f"`{m['method']}`", str(m["n"]), share(m["frozen"]), share(m["adapted"]), points(m),
            f"{m['helped']}/{m['of_failed']}", f"{m['hurt']}/{m['of_solved']}",
        )
        for m in data["methods"]
    ]  # fmt: skip
    return "\n".join([
        "## Transfer to other instances\n",
        "One update from one failed attempt, then one greedy attempt at another instance of the same task, paired with the frozen "
        "policy's.\n",
        _command(data),
        markdown_table(("method", "n", "frozen", "adapted", "difference", "helped", "hurt"), rows),
    ])  # fmt: skip


def costs(data: Json) -> str:
    """Seconds and memory per method (ROSA2 Table 4)."""
    rows = [
        (
            f"`{m['method']}`", str(m["attempts"]), *(number(m["seconds"][p], 3) for p in ("acting", "environment", "words", "weights")),
            share(m["words_of_acting"]), share(m["weights_of_acting"]), number(m["adapter_mb"]), f"{m['peak_mb'].get('rss', 0):.0f}",
        )
        for m in data["methods"]
    ]  # fmt: skip
    header = (
        "method",
        "attempts",
        "acting s",
        "environment s",
        "words s",
        "weights s",
        "words % of acting",
        "weights % of acting",
        "adapter MB",
        "peak MB",
    )
    note = (
        "Mean seconds per attempt, one session at a time; the shares are of attempts that were learned from; peak: the process "
        "without the browser.\n"
    )
    return "\n".join(
        ["## Time and memory on the bundled policy (ROSA2 Table 4)\n", note, _command(data), markdown_table(header, rows)]
    )


def rosa_cost(data: Json) -> str:
    """The cost of an update at the head's real shape."""
    s = data["shape"]
    rows = []
    for cost in data["costs"]:
        same = {c["method"]: c for c in data["costs"] if c["tokens"] == cost["tokens"]}
        ratios = [number(cost["cpu_s"] / same[m]["cpu_s"], 3) if m in same else "–" for m in ("dual", "generate")]
        rows.append(
            (
                str(cost["tokens"]),
                f"`{cost['method']}`",
                number(cost["seconds"]),
                number(cost["cpu_s"]),
                *ratios,
                f"{cost['extra_mb']:.0f}",
            )
        )
    return "\n".join([
        "## The cost of one update\n",
        f"d={s['hidden']}, V={s['vocab']}, {s['layers']} layers of random weights, {s['device']}, {s['threads']} threads. Extra MB: rise "
        "of the peak above model and H. Seconds of a CG run or of generating may be scaled up from a part of it (see the JSON).\n",
        _command(data),
        markdown_table(("T", "method", "s", "CPU s", "/ dual", "/ generate", "extra MB"), rows),
        *([_update_memory(data["memory"])] if "memory" in data else []),
    ])  # fmt: skip


def _update_memory(data: Json) -> str:
    """The memory of whole updates."""
    s = data["shape"]
    rows = [
        (str(m["tokens"]), f"`{m['setting']}`", str(m["rank"]), f"{m['adapter_mb']:.0f}", f"{m['extra_mb']:.0f}")
        for m in data["updates"]
    ]
    return "\n".join([
        f"\nThe memory of whole updates of the preset `rosa` (and at rank 1), after-check included, at d={s['hidden']}, V={s['vocab']}, "
        f"{s['device']}. Extra MB: rise of the peak above W, H and y; a second update's includes the first one's adapter.\n",
        _command(data),
        markdown_table(("T", "update", "rank", "adapter MB", "extra MB"), rows),
    ])  # fmt: skip


def serving(data: Json) -> str:
    """Acting through a server against acting in this process."""
    rows = [
        (
            str(r["sessions"]),
            number(r["ours_tokens_per_s"], 1),
            number(r["served_tokens_per_s"], 1),
            number(r["served_over_ours"], 2),
        )
        for r in data["throughput"]
    ]
    swaps = [
        (rank, number(s["mb"], 1), f"{s['median_ms']:.0f}", f"{s['worst_ms']:.0f}") for rank, s in data["swap_by_rank"].items()
    ]
    h = data["H"]
    return "\n".join([
        "## Acting in this process and through a vLLM server\n",
        f"Random weights of UI-TARS's architecture, size `{data['size']}`, with its true vocabulary, {data['dtype']}, {data['device']}, "
        f"{data['threads']} threads; every session has an adapter of rank {data['rank']}, shows {data['pictures']} screenshots or more and "
        "wants H. Tokens per second of all sessions together, prompts included; both engines take turns in one run.\n",
        _command(data),
        markdown_table(("sessions", "in process", "served", "served / in process"), rows),
        "\nAn adapter sent and in use, by rank:\n",
        markdown_table(("rank", "MB", "median ms", "worst ms"), swaps),
        f"\nH of {h['tokens']} tokens, d={h['d']}: {h['kb_per_token']:.1f} KB a token on the wire; a reply with it takes "
        f"{h['reply_with_H_ms']:.0f} ms, without {h['reply_without_ms']:.0f} ms.\n",
    ])  # fmt: skip


def cluster(data: Json) -> str:
    """Nodes of Ray on one machine: what they cost, and what is lost when they are killed."""
    parts = [
        "## Nodes of a cluster\n",
        "Several real nodes of Ray on one machine: they share its processors, so that more are not faster.\n",
    ]
    if "speed" in data:
        rows = []
        for count, timed in sorted(data["speed"]["at a time"].items(), key=lambda one: int(one[0])):
            rates = (number(timed[kind]["episodes per minute"], 1) for kind in ("threads", "nodes"))
            rows.append((count, *rates, number(timed["ratio"], 2), str(timed["same rows"])))
        header = ("at a time", "threads: episodes a minute", "nodes", "nodes / threads", "same rows")
        parts += [f"MiniWoB++, policy `{data['speed']['policy']}`.\n", _command(data["speed"]), markdown_table(header, rows), ""]
    if "kills" in data:
        told = [(name, str(value)) for name, value in data["kills"].items() if name != "command"]
        parts += [
            "Nodes killed in the midst of a run and started again:\n",
            _command(data["kills"]),
            markdown_table(("", ""), told),
            "",
        ]
    return "\n".join(parts)


def _command(data: Json) -> str:
    return f"```sh\n{data['command']}\n```\n" if "command" in data else ""


def _image(name: str) -> Path:
    folder = DOCS / "img"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


PARTS: tuple[tuple[str, Callable[[Json], str]], ...] = (
    ("transfer", transfer), ("costs", costs), ("rosa_cost", rosa_cost), ("serving", serving),
    ("cluster", cluster), ("experience-reasoning", experience), ("experience-reasoning-11", experience),
    ("experience-miniwob", experience),
)  # fmt: skip


def main() -> None:
    """Write the page from what results there are."""
    parts = [
        "# Measured claims\n",
        conclusion(),
        "Made by `python benchmarks/report.py` from `benchmarks/results/`; do not edit by hand. Where a "
        "comparison has been made, the outcome of every method at every instance is in `benchmarks/results/*-report.jsonl`, and a test "
        "computes the main table again from there.\n",
        *(part(study, RESULTS, _image, drawn=names) for study, names in _shown()),
    ]
    for name, write in PARTS:
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts.append(write(json.loads(path.read_text(encoding="utf-8"))))
    (DOCS / "results.md").write_text("\n".join(parts), encoding="utf-8")
    readme = DOCS.parent / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n{conclusion()}{END}{rest.partition(END)[2]}", encoding="utf-8")
    print(DOCS / "results.md")


if __name__ == "__main__":
    main()
