"""The report's numbers against results.jsonl worked out again by hand, and its manners towards runs of strangers."""

import json
import statistics
from html.parser import HTMLParser

import numpy as np
import pytest
from made_runs import Made, make_run, task
from PIL import Image

from agentlab.disk.row import SPLIT
from agentlab.disk.runs import read_run
from agentlab.results import figures
from agentlab.results.drawing import draw_actions
from agentlab.results.report import make_report
from envs import actions as act
from envs.errors import StoreError, UsageError

UPDATE = {"method": "rosa", "accepted": True, "seconds": 0.01}
EVIL = "<script>alert(1)</script> | `x` <img src=http://a.b/c onerror=alert(1)>"


@pytest.fixture
def run(tmp_path):
    sessions = [
        (task("click-a"), [Made(True)]),
        (
            task("click-a", 2),
            [Made(update=UPDATE | {"kl_mean": 0.2}, guidance_after="Try the other one."), Made(True, seconds=2.0)],
        ),
        (task("click-b", domain="desk|top"), [Made(update=UPDATE | {"kl_mean": 0.4}), Made(seconds=3.0), Made(seconds=4.0)]),
        (task("click-b", 2, "desk|top"), [Made(update=UPDATE | {"accepted": False, "error": EVIL}), Made(broken="browser")]),
        (task("click-c"), [Made()]),  # not over
    ]
    return make_run(tmp_path / "run", sessions)


class Tables(HTMLParser):
    """Headings, and the cells of the table below each."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.tags, self._cell = {}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in {"h2", "td", "th"}:
            self._cell = ""
        elif tag == "tr":
            self.tables[self._heading].append([])

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag):
        if tag == "h2":
            self._heading = self._cell
            self.tables[self._heading] = []
        elif tag in {"td", "th"}:
            self.tables[self._heading][-1].append(self._cell)
        self._cell = None


def test_the_pages_say_what_results_jsonl_says(run):
    """Everything is computed here again from the file, session by session."""
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    over = {r["task"] for r in rows if r["session_over"]}
    solved_at = {t: min([r["attempt"] for r in rows if r["task"] == t and r["success"]], default=99) for t in over}
    failed_first = {r["task"] for r in rows if r["attempt"] == 1 and not r["success"] and r["task"] in over}
    expected = [sum(at <= k for at in solved_at.values()) / len(over) for k in (1, 2, 3)]
    assert (len(over), expected) == (4, [0.25, 0.5, 0.5])

    make_report(read_run(run)).write(run / "report")
    tables = Tables((run / "report/report.html").read_text()).tables
    summary = dict(tables["Summary"][1:])
    assert summary["sessions"] == "4"
    assert [summary[f"success@{k}"] for k in (1, 2, 3)] == [f"{share:.1%}" for share in expected]
    assert (
        summary["correction uplift"]
        == f"{sum(solved_at[t] < 99 for t in failed_first) / len(failed_first):.1%} of 3 failed at attempt 1"
    )
    assert summary["gained over attempt 1"] == "+25.0 points"
    took = {t: [sum(r["seconds"].values()) for r in rows if r["task"] == t] for t in over}
    until = {t: sum(took[t][: solved_at[t]]) if solved_at[t] < 99 else float("inf") for t in over}
    assert [(float(s), share) for s, share in tables["Success over seconds"][1:]] == [
        (at, f"{sum(s <= at for s in until.values()) / 4:.1%}") for at in (3.75, 7.5, 15.0, 30.0, 60.0, 120.0)
    ]
    assert [line[1] for line in tables["Success"][1:]] == [f"{share:.1%}" for share in expected]
    assert [line[3] for line in tables["Success"][1:]] == [str(sum(at == k for at in solved_at.values())) for k in (1, 2, 3)]
    for line in tables["Time"][1:]:
        made = [r for r in rows if r["attempt"] == int(line[0]) and r["outcome"] == "graded"]
        assert line[1:] == [str(len(made)), *(f"{statistics.fmean(r['seconds'][p] for r in made):.3f}" for p in SPLIT)]
    assert tables["Domains"][1:] == [["desk|top", "2", "0%", "0%", "0.0%", "1"], ["miniwob", "2", "50%", "100%", "100.0%", "0"]]
    assert [line[:4] for line in tables["Tasks"][1:]] == [["click-a", "2", "50%", "100%"], ["click-b", "2", "0%", "0%"]]
    kl = [r["update"]["kl_mean"] for r in rows if (r["update"] or {}).get("kl_mean")]
    spread = (statistics.fmean(kl), statistics.median(kl), min(kl), max(kl))
    assert ["kl_mean", "2", *(f"{v:.4g}" for v in spread)] in tables["Weight updates"]
    assert tables["Failures of the machinery"][1:] == [["browser", "3", "1", "browser died"]]


def test_intervals_hold_their_share_and_narrow_with_more_sessions(tmp_path):
    few = make_run(tmp_path / "few", [(task("t", n), [Made(n % 2 == 0)]) for n in range(6)], attempts=1)
    many = make_run(tmp_path / "many", [(task("t", n), [Made(n % 2 == 0)]) for n in range(24)], attempts=1)
    widths = []
    for folder in (few, many):
        (success,) = (s for s in make_report(read_run(folder)).sections if s.title == "Success")
        low, high = (float(part.strip(" %")) for part in success.rows[0][2].split("–"))
        assert low < 50 < high
        widths.append(high - low)
    assert widths[1] < widths[0]


def test_nothing_in_a_run_becomes_markup(run):
    report = make_report(read_run(run))
    report.write(run / "report")
    parsed = Tables((run / "report/report.html").read_text())
    assert not {tag for tag, _ in parsed.tags} & {"script", "a", "link", "iframe"}
    sources = [attrs["src"] for tag, attrs in parsed.tags if tag == "img"]
    assert len(sources) == 4 and all(s.startswith("data:image/png;base64,") for s in sources)
    text = (run / "report/report.md").read_text()
    assert "<script" not in text and "<img" not in text and "desk\\|top" in text


def test_a_run_with_corrupt_and_foreign_attempts_is_shown_without_them(run):
    (run / "sessions/click-a_1/attempt_01/result.json").write_text("{")
    other = run / "sessions/click-b_2/attempt_01/result.json"
    other.write_text(json.dumps(json.loads(other.read_text()) | {"schema": 99}))
    with (run / "results.jsonl").open("a") as file:
        file.write('{"torn')
    found = read_run(run)
    report = make_report(found)
    assert {r.task for r in found.rows} == {"click-a_2", "click-b_1", "click-c_1"}
    (trouble,) = (s for s in report.sections if s.title == "Could not be read")
    assert "corrupt" in trouble.rows[0][0] and "schema" in trouble.rows[1][0]


def test_a_run_without_results_has_a_report(tmp_path):
    folder = make_run(tmp_path / "run", [])
    make_report(read_run(folder)).write(folder / "report")
    assert "| sessions | 0 |" in (folder / "report/report.md").read_text()
    assert not list((folder / "report").glob("*.png"))


def test_a_run_of_another_version_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"schema": 7, "config": {}}')
    with pytest.raises(StoreError, match="schema 7"):
        read_run(tmp_path)


# -- pictures ----------------------------------------------------------------------------------------------------------------------
def magenta(picture) -> np.ndarray:
    """Where a picture has the colour of marks, as [N, 2] points (x, y)."""
    pixels = np.asarray(picture).astype(int)
    near = (abs(pixels - np.array([214, 0, 92])).sum(axis=2)) < 60
    return np.argwhere(near)[:, ::-1]


@pytest.mark.parametrize("action", [act.Click(120.0, 40.0), act.DoubleClick(120.0, 40.0), act.LongPress(120.0, 40.0)])
def test_a_mark_lies_where_the_action_was(action):
    points = magenta(draw_actions(np.full((220, 160, 3), 255, np.uint8), [action], 2.0).crop((0, 0, 320, 400)))
    assert np.allclose(points.mean(axis=0), (240, 80), atol=1.5)


def test_a_drag_points_from_start_to_end():
    points = magenta(draw_actions(np.full((220, 160, 3), 255, np.uint8), [act.Drag(20.0, 30.0, 120.0, 180.0)], 2.0))
    assert abs(points - (40, 60)).sum(axis=1).min() < 3 and abs(points - (240, 360)).sum(axis=1).min() < 4


def test_marks_off_the_screen_and_without_place_do_no_harm():
    blank = np.zeros((50, 60, 3), np.uint8)
    marks = [act.Click(-900.0, 1e6), act.Wait(), act.Type("x" * 5000), act.Invalid("no"), act.Scroll(5.0, 5.0, "up")]
    assert draw_actions(blank, marks, 1.0).size == (60, 50)


def test_a_strip_shows_every_attempt_and_the_actions(run, tmp_path):
    figures.attempt_strip(run, "click-b_1", tmp_path / "strip.png")
    figures.attempt_strip(run, "click-b_1", tmp_path / "one.png", attempts=[2])
    whole, one = Image.open(tmp_path / "strip.png").convert("RGB"), Image.open(tmp_path / "one.png").convert("RGB")
    assert whole.height > 2.5 * one.height and whole.width == one.width > 320 + 250
    assert len(magenta(one)) > 50


def test_strips_are_on_the_page_and_a_link_in_their_place_is_not_followed(run, tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (run / "report").mkdir()
    (run / "report/session_click-a_2.png").symlink_to(mine)
    made = make_report(read_run(run), strips=2)
    made.write(run / "report")
    assert mine.read_text() == "mine"
    page = Tables((run / "report/report.html").read_text())
    assert page.tables["Sessions"][1:] == [["click-a_2", "2"], ["click-a_1", "1"]]  # what was learned first
    assert sum(tag == "img" for tag, _ in page.tags) == 6 and "(session_click-a_2.png)" in (run / "report/report.md").read_text()
    assert Image.open(run / "report/session_click-a_2.png").size[0] > 400


def test_a_strip_of_a_damaged_session_shows_the_rest(run, tmp_path):
    folder = run / "sessions/click-b_1"
    (folder / "attempt_01/screens/000.webp").unlink()
    events = folder / "attempt_02/events.jsonl"
    events.write_text(events.read_text().replace("screens/000.webp", "../../../../secret.webp") + '{"torn')
    figures.attempt_strip(run, "click-b_1", tmp_path / "strip.png")
    assert Image.open(tmp_path / "strip.png").size[0] > 0
    with pytest.raises(UsageError, match="no session"):
        figures.attempt_strip(run, "../../etc", tmp_path / "x.png")
