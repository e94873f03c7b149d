"""The paired benchmarks: everybody goes on from the same recorded failure, what is done is not done again, the numbers are right."""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import comparison
import experience
import measures
import options
import outcomes
import paired
import pool
import report
import report_comparison
import report_experience
import rosa_cost
import studies
import transfer
from outcomes import Outcome

from agentlab.disk.runs import read_rows
from agentlab.results.metrics import SessionSummary
from envs.base import TaskSpec
from envs.errors import UsageError


def outcome(method: str, number: int, name: str, solved_at: int, attempts: int = 5, **more) -> Outcome:
    made = (solved_at or attempts) - 1
    lists = {"forward": [6] * made, "prefill": [1] * made, "tokens": [6] * made, "replies": [1] * made}
    lists |= {"unparsable": [0] * made, "redrawn": [0] * made, "repeats": [0] * made, "update": [None] * made}
    about = {"task": f"{name}_{number}", "name": name, "key": f"{name}{number}", "ended": "solved" if solved_at else "failed"}
    return Outcome(method, 1, solved_at=solved_at, **about, **lists, **more)


def outcomes_of(method: str, solved_at: list[int], names: list[str]) -> list[Outcome]:
    return [outcome(method, i, name, s) for i, (s, name) in enumerate(zip(solved_at, names, strict=True))]


def test_differences_are_paired_and_prices_count_retries_only() -> None:
    names = [n for n in "abcdefghij" for _ in range(2)]
    low = outcomes_of("low", [0] * 14 + [3] * 6, names)
    high = outcomes_of("high", [2] * 10 + [0] * 4 + [3] * 6, names)
    d = measures.difference(low, high[::-1], 5)
    assert d is not None and (d.points, d.won, d.lost, d.n, d.clusters) == (0.5, 10, 0, 20, 10)
    assert 0.1 < d.interval[0] < 0.5 < d.interval[1] < 0.9 and d.p == 2 / 2**5, "five whole tasks point one way"
    assert measures.difference(low[:1], high[1:], 5) is None
    assert measures.price(low, 5).attempts == (14 * 4 + 6 * 2) / 6 and measures.price(low, 5).forward == 6 * (14 * 4 + 6 * 2) / 6
    assert measures.price(high, 2).attempts == 20 / 10 and measures.price(low, 2).attempts is None
    assert measures.by_chance(5, 5) == 1.0 and measures.by_chance(2, 2) == 1.0 and measures.by_chance(6, 3) == 0.4


def test_instances_of_one_task_count_as_one_cluster() -> None:
    solved = [2] * 10 + [0] * 10
    apart, together = (
        measures.share(outcomes_of("m", solved, names), 5)[1]
        for names in ([str(i) for i in range(20)], ["a"] * 10 + ["b"] * 10)
    )  # fmt: skip
    assert together[1] - together[0] > apart[1] - apart[0]


def test_what_was_tuned_on_is_never_reported_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"report on seeds it is tuned on: \[8101\]"):
        dataclasses.replace(studies.REASONING, tuning=(1, 8101))
    with pytest.raises(UsageError, match="2 instances are both tuned on and reported on"):
        studies.check_disjoint({"a", "b", "c"}, ["b", "c", "d"])
    spec = TaskSpec("agentlab/miniwob-v0", "click-test", 7, 3)
    assert studies.instance_key(spec) == studies.instance_key(dataclasses.replace(spec, repeat=2))
    assert studies.instance_key(spec) != studies.instance_key(dataclasses.replace(spec, seed=8))
    monkeypatch.setattr(comparison, "RESULTS", tmp_path)
    outcomes.write(tmp_path / "reasoning-tune.jsonl", [outcome("first", 1, "gcd", 0)])
    stage = comparison.Comparison(studies.REASONING, "report", options_of())
    with pytest.raises(UsageError, match="both tuned on and reported on"):
        stage.keep("first", [outcome("first", 1, "gcd", 0)])


def options_of(**more) -> argparse.Namespace:
    known = {"pairs": None, "attempts": None, "limit": 40, "workers": 4, "threads": 1, "minutes": None, "work": None}
    return argparse.Namespace(**known | more)


def test_the_best_line_is_chosen_and_a_tie_goes_to_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "RESULTS", tmp_path)
    names = ["a", "b", "c", "d"]
    found = [*outcomes_of("no-repeat #0", [0, 0, 3, 3], names), *outcomes_of("no-repeat #1", [0, 0, 3, 3], names)]
    found += outcomes_of("best-of-k #0", [0, 0, 2, 0], names) + outcomes_of("best-of-k #2", [2, 2, 0], names[:3])
    outcomes.write(tmp_path / "reasoning-tune.jsonl", found)
    ran = {
        f"{name} #{n}": {"sets": list(studies.REASONING.method(name).lines[n]), "wanted": 3}
        for name in ("no-repeat", "best-of-k")
        for n in range(3)
    }
    (tmp_path / "reasoning-tune.json").write_text(json.dumps({"methods": ran}))
    comparison.choose(studies.REASONING)
    chosen = comparison.tuned(studies.REASONING)
    assert comparison.swept(studies.REASONING) == {"no-repeat": 2, "best-of-k": 2}, "as many lines as were run"
    assert chosen == {"no-repeat": studies.COOL[0], "best-of-k": studies.COOL[2]}, "over the three instances that both lines have"
    stage = comparison.Comparison(studies.REASONING, "report", options_of())
    assert [p.sets for p in stage.pieces(["no-repeat"], False)] == [studies.COOL[0]]
    with pytest.raises(UsageError, match="Nothing was chosen for rl yet"):
        stage.pieces(["rl"], False)
    ran["best-of-k #2"]["wanted"] = 4  # it was stopped, and had ended three: those that it solved are ended first
    (tmp_path / "reasoning-tune.json").write_text(json.dumps({"methods": ran}))
    comparison.choose(studies.REASONING)
    assert comparison.tuned(studies.REASONING)["best-of-k"] == studies.COOL[0]
    ran["no-repeat #0"]["sets"] = ["sampling.temperature=9"]  # the list of lines has changed since it was run
    (tmp_path / "reasoning-tune.json").write_text(json.dumps({"methods": ran}))
    comparison.choose(studies.REASONING)
    assert comparison.tuned(studies.REASONING)["no-repeat"] == studies.COOL[1]


def test_of_one_family_the_instances_are_resampled() -> None:
    """An interval of no width would say that nothing is uncertain."""
    half = [outcome("x", i, "one", 2 if i % 2 else 0) for i in range(20)]
    none = [outcome("y", i, "one", 0) for i in range(20)]
    low, high = measures.share(half, 2)[1]
    found = measures.difference(none, half, 2)
    assert 0.2 < low < 0.4 and 0.6 < high < 0.8
    assert found is not None and found.interval[0] < 0.4 and found.p == pytest.approx(2**-9) and found.clusters == 20


def test_every_method_and_every_line_resolves(tmp_path: Path) -> None:
    for study in studies.STUDIES.values():
        for stage in comparison.STAGES:
            made = comparison.Comparison(study, stage, options_of(work=tmp_path))
            for piece in made.pieces(None, True):
                config = made.config(piece, 1)
                assert config.adapt.preset == piece.method.preset and config.sampling.first_greedy
        assert len({m.name for m in study.methods}) == len(study.methods)


def test_the_main_tables_are_those_of_the_outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up outcomes, in which methods have ended different instances, and one runs on some tasks only."""
    draw, found, about = random.Random(0), [outcome("first", i, f"f{i % 8}", int(i < 11)) for i in range(60)], {}
    for number, method in enumerate(studies.REASONING.methods[:5]):
        some = [i for i in range(11, 60 - 3 * number) if not method.only or i % 2]
        found += [outcome(method.name, i, f"f{i % 8}", draw.choice([0, 0, 2, 3, 6]), 10) for i in some]
        about[method.name] = {
            "preset": method.preset, "sets": list(method.fixed), "uses": list(method.uses), "only": bool(method.only), "swept": 0,
            "lines": 5, "wanted": 49, "cpu_seconds": 33.0, "commit": "abc",
        }  # fmt: skip
    outcomes.write(tmp_path / "reasoning-report.jsonl", found)
    (tmp_path / "reasoning-report.json").write_text(json.dumps({"attempts": 10, "seeds": [8101], "methods": about}))
    drawn: list[list[str]] = []
    monkeypatch.setattr(report_comparison.figures, "success_curve", lambda bands, *_, **__: drawn.append([*bands]))
    page = report_comparison.part(studies.REASONING, tmp_path, lambda name: tmp_path / name)
    report_comparison.part(studies.REASONING, tmp_path, lambda name: tmp_path / name, drawn=("rosa", "not run"))
    assert drawn == [[*about], ["next-best", "no-repeat", "rosa"]]
    _recompute(page, (tmp_path / "reasoning-report.jsonl").read_text(encoding="utf-8"))
    assert "**Not finished**" in page and "0 of 5: the first" in page
    with pytest.raises(AssertionError):
        _recompute(
            page.replace("| `no-repeat` | one bit | ", "| `no-repeat` | one bit | 1", 1),
            (tmp_path / "reasoning-report.jsonl").read_text(),
        )


def test_only_what_is_beyond_its_interval_and_finished_is_told(tmp_path: Path) -> None:
    names = [n for n in "abcdefghij" for _ in range(4)]
    rows = {
        "next-best": [0, 0, 0, 3] * 10, "no-repeat": [0, 0, 3, 0] * 10, "rosa-reply": [2, 2, 2, 3] * 10, "rosa": [0, 0, 0, 0] * 10,
        "best-of-k": [2, 2, 2, 2] * 9, "slot": [2, 0, 0, 3] + [0, 0, 3, 3] * 2 + [0, 0, 0, 3] * 7,
        "rosa-paper": [0, 0, 3, 0] + [0, 0, 0, 3] * 8 + [0, 0, 0, 0],
    }  # fmt: skip
    found = [one for method, solved in rows.items() for one in outcomes_of(method, solved, names[: len(solved)])]
    outcomes.write(tmp_path / "reasoning-report.jsonl", found)
    about = {method: {"uses": ["one bit"], "wanted": 40} for method in rows}
    (tmp_path / "reasoning-report.json").write_text(json.dumps({"attempts": 5, "seeds": [1], "methods": about}))
    told = [(studies.REASONING, ("rosa-reply", "rosa", "best-of-k", "slot", "rosa-paper", "rl"))]
    assert report_comparison.told_apart(told, tmp_path, 5) == (["`rosa-reply` on reasoning"], ["`rosa` on reasoning"])
    table = report_comparison.headline(told, tmp_path, 5)
    assert "| reasoning | `rosa-reply` | one bit | 40 | 100.0 | +75.0 (+75.0 … +75.0) | +75.0 (+75.0 … +75.0) | 0.09 × |" in table
    assert "best-of-k" not in table and "rl" not in table  # one is not finished, the other was not run
    assert report_comparison.headline(told, tmp_path / "nowhere", 5) == "Nothing has been measured yet.\n"


@pytest.mark.parametrize("name", ["reasoning", "miniwob"])
def test_the_command_beside_a_table_is_one_that_makes_its_rows(name: str) -> None:
    study = studies.STUDIES[name]
    about = json.loads((comparison.RESULTS / f"{name}-report.json").read_text(encoding="utf-8"))
    stage = comparison.Comparison(study, "report", options_of(pairs=about["pairs"]))
    assert stage.command(about["methods"]) == about["command"]
    untuned = [method for method, one in about["methods"].items() if one["lines"] > 1 and not one["swept"]]
    assert bool(untuned) == ("--untuned" in about["command"])
    made = {piece.name: list(piece.sets) for piece in stage.pieces(list(about["methods"]), untuned=bool(untuned))}
    assert made == {method: one["sets"] for method, one in about["methods"].items()}


def test_the_conclusion_stands_in_both_pages() -> None:
    docs = Path(report.__file__).parents[1]
    for page in ("README.md", "docs/results.md"):
        assert report.conclusion() in (docs / page).read_text(encoding="utf-8"), "run: python benchmarks/report.py"


def test_the_main_tables_of_the_page_are_those_of_the_stored_outcomes() -> None:
    root = Path(__file__).parents[1]
    page = (root / "docs/results.md").read_text(encoding="utf-8")
    for file in sorted((root / "benchmarks/results").glob("*-report.jsonl")):
        study = studies.STUDIES[file.name.removesuffix("-report.jsonl")]
        part = page[page.index(f"## {study.suite}, `{study.policy}`") :]
        lines = file.read_text(encoding="utf-8")
        _recompute(part[: part.find("\n## ", 5)] if "\n## " in part[5:] else part, lines)
        tuned = file.with_name(f"{study.name}-tune.jsonl")
        keys = [{json.loads(x)["key"] for x in text.splitlines()} for text in (lines, tuned.read_text() if tuned.exists() else "")]
        assert not keys[0] & keys[1], "an instance is both tuned on and reported on"


def _recompute(part: str, text: str) -> None:
    """The main table and the differences again from the JSON lines, by other code than the product's: counting, and pairing by hand."""
    lines = [json.loads(line) for line in text.splitlines()]
    methods = list(dict.fromkeys(one["method"] for one in lines if one["method"] != "first"))
    solved = {(one["method"], one["seed"], one["task"], one["repeat"]): one["solved_at"] for one in lines}
    header, *rows = _table(part, "| method | learns from")
    ks = [int(cell[1:]) for cell in header if cell.startswith("@")]
    assert methods and [row[0].strip("`") for row in rows] == methods
    for row in rows:
        mine = [at for (m, *_), at in solved.items() if m == row[0].strip("`")]
        shares = [f"{100 * sum(0 < at <= k for at in mine) / len(mine):.1f}" for k in ks]
        assert [cell.split()[0] for cell in row[3 : 3 + len(ks)]] == shares, row
        assert row[2].split("/")[0] == str(len(mine))
    for reference in ("next-best", "no-repeat"):
        for row in _table(part, f"| minus `{reference}`")[1:] if reference in methods else []:
            name = row[0].strip("`")
            pairs = [(solved[reference, *i], at) for (m, *i), at in solved.items() if m == name and (reference, *i) in solved]
            assert row[1].split(",")[0] == str(len(pairs))
            for k, cell in zip(ks, row[2:], strict=True):
                won = sum((0 < b <= k) and not 0 < a <= k for a, b in pairs)
                lost = sum((0 < a <= k) and not 0 < b <= k for a, b in pairs)
                assert cell.split()[0] == f"{100 * (won - lost) / len(pairs):+.1f}" and cell.endswith(f"{won}/{lost}")


def _table(text: str, start: str) -> list[list[str]]:
    """Cells of the first Markdown table whose header starts like this, without the rule under the header."""
    lines = text[text.index(start) :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for n, line in enumerate(lines) if n != 1]


def test_after_the_deadline_only_groups_that_were_begun_are_finished(tmp_path: Path) -> None:
    config = options.Setup("ui-tars-nano", 5, (1,), 10, 100, tmp_path, 2).config("x", 1, "none", 5, ())
    jobs = [pool.Job(pool.ContinuedSession, config, TaskSpec("e", "t", i, 3), group=i // 2) for i in range(6)]
    waiting = pool._Queue(jobs, time.monotonic() + 3600)
    assert waiting.get() is jobs[0]
    waiting._deadline = time.monotonic() - 1
    assert [waiting.get(), waiting.get(), waiting.get()] == [jobs[1], None, None]


def test_transfer_goes_to_other_instances_of_the_same_task() -> None:
    tasks = [TaskSpec("e", name, seed, 3) for seed in range(3) for name in ("a", "b")]
    pair = paired.Pair(1, tasks[2], Path())
    assert [(t.name, t.seed) for t in transfer.targets(pair, tasks, 5)] == [("a", 2), ("a", 0)]


def test_the_whole_models_derivatives_are_those_of_the_head() -> None:
    assert rosa_cost.check_full() < 1e-4


def test_every_cost_is_measured_and_told() -> None:
    args = argparse.Namespace(device="cpu", hidden=128, vocab=500, layers=1, cg_measured=2, generate_measured=4)
    costs = [rosa_cost.generate(args, 16), *(rosa_cost.update(args, m, 16) for m in ("dual", "cg", "cg-full"))]
    assert [c.method for c in costs] == list(rosa_cost.METHODS) and all(c.seconds > 0 and c.cpu_s > 0 for c in costs)
    assert [c.scaled_by for c in costs] == [4.0, 1.0, 21 / 5, 21 / 5]
    shape = {"hidden": 128, "vocab": 500, "layers": 1, "device": "cpu", "threads": 1}
    page = report.rosa_cost({"shape": shape, "costs": [dataclasses.asdict(c) for c in costs]})
    assert "| 16 | `cg-full` |" in page


@pytest.mark.browser
@pytest.mark.usefixtures("one_browser")
def test_all_methods_go_on_from_the_same_failure_and_nothing_is_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = studies.Study(
        "tiny", "miniwob", "ui-tars-nano", 3, (9002,), (9001,), (2, 1), (),
        (
            studies.Method("no-repeat", "no-repeat", lines=studies.COOL[:2]),
            studies.Method("rosa2 (words: rules)", "rosa2", ("adapt.score_under=refined",)),
        ),
        tasks=("grid-coordinate", "visual-addition"),
    )  # fmt: skip
    monkeypatch.setitem(studies.STUDIES, "tiny", study)
    monkeypatch.setattr(comparison, "RESULTS", tmp_path)

    def run(stage: str) -> list[Outcome]:
        monkeypatch.setattr(sys, "argv", ["comparison.py", "tiny", "--stage", stage, "--work", str(tmp_path), "--workers", "4"])
        comparison.main()
        return outcomes.read(tmp_path / f"tiny-{stage}.jsonl")

    assert {o.method for o in run("tune")} == {"first", "no-repeat #0", "no-repeat #1"}
    found = run("report")
    failed = {o.instance for o in found if o.method == "first" and o.ended == "failed"}
    for name in ("no-repeat", "rosa2 (words: rules)"):
        assert {o.instance for o in found if o.method == name} == failed and len(failed) == 2
    assert all(not any(o.repeats) for o in found if o.method == "no-repeat")
    rosa2 = [o for o in found if o.method == "rosa2 (words: rules)"]
    assert all(len(o.forward) == (o.solved_at or 3) - 1 and min(o.forward) > 0 for o in rosa2)
    assert any(t is not None and len(t) == 4 and min(t) > 0 for o in rosa2 for t in o.theorem) or all(
        o.solved_at == 2 for o in rosa2
    )
    work = next(tmp_path.glob("tiny-*/"))
    firsts = {r.task: r.actions_hash for r in read_rows(work / "s9001-first") if not r.success}
    for folder in work.glob("s9001-report-*"):
        rows = [r for r in read_rows(folder) if r.attempt == 1] if folder.is_dir() else []
        assert all(firsts[r.task] == r.actions_hash and not r.success for r in rows)
        assert not list(folder.glob("sessions/*/*/screens")), "of finished sessions the rows stay"

    monkeypatch.setattr(pool.Pool, "_one", lambda *a: pytest.fail("made twice"))
    assert run("report") == found
    page = report_comparison.part(study, tmp_path, lambda name: tmp_path / name)
    assert "Theorem 4.1" in page and "| `rosa2 (words: rules)` |" in page and (tmp_path / "tiny.png").stat().st_size > 1000

    monkeypatch.undo()
    common = [
        "--seeds",
        "9001",
        "--pairs",
        "1",
        "--limit",
        "8",
        "--attempts",
        "2",
        "--work",
        str(tmp_path / "work"),
        "--workers",
        "4",
    ]
    common += ["--tasks", "grid-coordinate,visual-addition", "--targets", "1", "--methods", "rosa"]
    monkeypatch.setattr(transfer, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["transfer.py", *common])
    transfer.main()
    moved = json.loads((tmp_path / "transfer.json").read_text())["methods"][0]
    assert moved["n"] == 1 and moved["of_failed"] + moved["of_solved"] == 1
    assert "one greedy attempt" in report.transfer(json.loads((tmp_path / "transfer.json").read_text()))


@pytest.mark.parametrize("path", sorted(comparison.RESULTS.glob("experience-*.json")), ids=lambda path: path.stem)
def test_the_tables_of_a_stream_are_those_of_its_stored_sessions(path: Path) -> None:
    """By other code than the tables are made with."""
    data = json.loads(path.read_text(encoding="utf-8"))
    page = (comparison.RESULTS.parent.parent / "docs" / "results.md").read_text(encoding="utf-8")
    (page,) = (part for part in page.split("\n## ") if part.startswith("Experience: ") and data["command"] in part)
    stored = data["outcomes"]["stream"]
    middle = len(stored["sessions"]) // 2
    assert len(stored["sessions"]) == data["limit"] and data["seed"] > 9
    for row in data["rows"]:
        frozen, other = (stored["solved_at"][name] for name in ("frozen", row))
        for label, places in (("first half", slice(middle)), ("second half", slice(middle, None)), ("all", slice(None))):
            pairs = list(zip(frozen[places], other[places], strict=True))
            won = sum(b == 1 != a for a, b in pairs)
            lost = sum(a == 1 != b for a, b in pairs)
            line = next(text for text in page.splitlines() if text.startswith(f"| `{row}` | {label} | {len(pairs)} "))
            assert f"| {100 * (won - lost) / len(pairs):+.1f} (" in line and f"| {won}/{lost} |" in line


def test_a_task_that_experience_harms_is_named() -> None:
    """Six lost of six are more than chance, five are not; the first half is not asked."""
    sessions = [("early", "e")] * 12 + [("harmed", "h")] * 6 + [("unlucky", "u")] * 6

    def told(after: list[int]) -> str:
        solved = {"frozen": [1] * 24, "words": [2] * 12 + after}
        return report_experience._worse({"outcomes": {"stream": {"sessions": sessions, "solved_at": solved}}})

    assert "harmed under `words` (0 won, 6 lost, p = 0.031)" in told([2] * 6 + [1] * 6)
    assert "No task is significantly worse" in told([1] * 7 + [0] * 5)


def test_the_most_frequent_answer_is_used_where_it_did_better_and_knows_no_later_round() -> None:
    def session(n: int, name: str, at: int | None) -> SessionSummary:
        return SessionSummary(f"{name}_{n}", name, "", at, at or 5, False, at != 1)

    biased = [session(n, "biased", 2) for n in range(12)]  # always "yes", which the policy says second
    open_ = [session(n, "open", 1) for n in range(12)]  # always another answer, which it knows
    stream = [one for pair in zip(biased, open_, strict=True) for one in pair]
    right = [answer for n in range(12) for answer in ("yes", str(n))]
    found = experience.most_frequent(stream, right, 8)
    assert [one.solved_at for one in found if one.name == "open"] == [1] * 12
    # Of the first round nothing is known, in the second it is tried on the side, from the third on it is used.
    assert [one.solved_at for one in found if one.name == "biased"] == [None] * 8 + [1] * 4
