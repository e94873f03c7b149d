"""Two runs, paired by task: numbers against scipy and against hand, and what cannot be paired is refused."""

import itertools
import json

import pytest
from made_runs import Made, make_run, task

from agentlab.disk.runs import read_run
from agentlab.results import figures
from agentlab.results.compare import compare
from envs.errors import UsageError

N = 12


def sessions(solved_at: dict[int, int], attempts: int = 3, first: int = 0):
    """N sessions of one task, solved at the attempts given, else never."""
    return [
        (task(f"t{n % 3}", n), [Made(solved_at.get(n) == k) for k in range(1, min(solved_at.get(n, attempts), attempts) + 1)])
        for n in range(first, N)
    ]


@pytest.fixture
def runs(tmp_path):
    a = make_run(tmp_path / "a", sessions({0: 1, 1: 2, 2: 3}))
    b = make_run(tmp_path / "b", sessions({0: 1, 1: 1, 3: 2, 4: 2, 5: 2, 6: 3}), adapt={"preset": "rosa"}, workers=3)
    return [read_run(a), read_run(b)]


def test_paired_numbers(runs):
    found = compare(runs)
    (contrasts,) = found.contrasts
    rows = [[json.loads(line) for line in (run.folder / "results.jsonl").read_text().splitlines()] for run in runs]
    for k, contrast in enumerate(contrasts, start=1):
        a, b = ({r["task"] for r in made if r["success"] and r["attempt"] <= k} for made in rows)
        assert (contrast.only_first, contrast.only_other) == (len(a - b), len(b - a))
        assert contrast.difference == pytest.approx((len(b) - len(a)) / N)
        assert contrast.interval[0] <= contrast.difference <= contrast.interval[1]
        assert contrast.p == pytest.approx(_over_names(a, b))
    assert [c.only_other for c in contrasts] == [1, 3, 4] and contrasts[-1].only_first == 1


def test_settings_that_change_results_are_named_and_no_others(runs):
    (lines,) = compare(runs).settings
    assert any(line.startswith("adapt.preset: ") and line.endswith('-> "rosa"') for line in lines)
    assert any(line.startswith("adapt.weights.method") for line in lines)
    assert not any(line.startswith(("workers", "out")) for line in lines)


def _over_names(a, b):
    """p of the sign-flip test by going through all signs of the three tasks; written apart from the product's own."""
    sums = [sum((t in b) - (t in a) for t in a | b if t.startswith(name)) for name in ("t0", "t1", "t2")]
    signs = [[s * v for s, v in zip(pattern, sums, strict=True)] for pattern in itertools.product((1, -1), repeat=3)]
    return sum(abs(sum(flipped)) >= abs(sum(sums)) for flipped in signs) / len(signs)


def test_the_bootstrap_is_seeded(runs):
    assert compare(runs, seed=1).contrasts == compare(runs, seed=1).contrasts


def test_different_tasks_attempts_and_unfinished_sessions_are_refused_unless_forced(tmp_path, runs):
    fewer = read_run(make_run(tmp_path / "fewer", sessions({5: 1}, first=4)))
    with pytest.raises(UsageError, match=r"4 sessions ended in a and not in fewer \(t0_0, t0_3, t1_1, t2_2\)"):
        compare([runs[0], fewer])
    assert len(compare([runs[0], fewer], force=True).found[1]) == N - 4

    shorter = read_run(make_run(tmp_path / "shorter", sessions({0: 1, 1: 2}, attempts=2), attempts=2))
    with pytest.raises(UsageError, match="attempts is 3 in a and 2 in shorter"):
        compare([runs[0], shorter])
    forced = compare([runs[0], shorter], force=True)
    assert [c.difference for c in forced.contrasts[0]] == [0, 0]
    assert any("attempts is 3" in note for note in forced.notes)

    torn = read_run(make_run(tmp_path / "torn", [*sessions({0: 1})[:-1], (task("t2", 11), [Made()])]))
    with pytest.raises(UsageError, match=r"1 sessions ended in a and not in torn \(t2_11\)"):
        compare([runs[0], torn])

    other = read_run(make_run(tmp_path / "other", [(task("x"), [Made(True)])]))
    with pytest.raises(UsageError, match="no session in common"):
        compare([runs[0], other], force=True)
    with pytest.raises(UsageError, match="two runs"):
        compare(runs[:1])


def test_of_runs_of_different_lengths_only_the_attempts_that_both_have_count(tmp_path, monkeypatch):
    """A session that the longer run solves later than the shorter one may try is not a correction, and takes no seconds."""
    longer = read_run(make_run(tmp_path / "longer", sessions({0: 1, 1: 2, 2: 3, 3: 3}, attempts=3), attempts=3))
    shorter = read_run(make_run(tmp_path / "shorter", sessions({0: 1, 1: 2}, attempts=2), attempts=2))
    found = compare([longer, shorter], force=True)
    first, second = next(s for s in found.sections() if s.title == "Runs").rows
    assert first[1:] == second[1:] and first[3] == f"{1 / (N - 1):.1%}"  # success@1, success@2, uplift
    drawn, draw = {}, figures.success_over_seconds
    monkeypatch.setattr(
        figures, "success_over_seconds", lambda curves, *to, **how: (drawn.update(curves), draw(curves, *to, **how))
    )
    found.write(tmp_path / "out")
    times = [[(s.solved_seconds, s.seconds) for s in curve] for curve in drawn.values()]
    assert times[0] == times[1] and sum(solved is not None for solved, _ in times[0]) == 2


def test_first_attempts_that_were_the_same_are_counted(tmp_path):
    one, two = [Made(steps=[("", action)]) for action in _clicks()]
    a = make_run(tmp_path / "a", [(task("t", 1), [one]), (task("t", 2), [one])], attempts=1)
    b = make_run(tmp_path / "b", [(task("t", 1), [one]), (task("t", 2), [two])], attempts=1)
    assert any("in 1 of them" in note for note in compare([read_run(a), read_run(b)]).notes)


def _clicks():
    from envs.actions import Click

    return Click(1.0, 2.0), Click(1.0, 3.0)


def test_a_run_compared_with_itself_differs_in_nothing(runs, tmp_path):
    found = compare([runs[0], runs[0]])
    assert {(c.difference, c.interval, c.p) for c in found.contrasts[0]} == {(0.0, (0.0, 0.0), 1.0)}
    assert found.settings == [[]] and len(set(found.labels)) == 2
    found.write(tmp_path / "out")
    text = (tmp_path / "out/compare.md").read_text()
    assert "the same settings" in text and "Sessions solved by one" not in text
    assert (tmp_path / "out/success.png").stat().st_size > 1000


def test_first_attempts_that_the_machinery_ended_are_not_the_same(tmp_path):
    both = [(task("t", 1), [Made(broken="browser")]), (task("t", 2), [Made(True)])]
    a, b = (read_run(make_run(tmp_path / name, both)) for name in "ab")
    assert "The first attempts were the same, action by action, in 1 of them." in compare([a, b]).notes
