"""The viewer: what it serves of damaged, hostile and unfinished runs, and what a person sees of it in a real browser."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import httpx
import pytest
import uvicorn
from made_runs import Made, make_attempt, make_run, task
from playwright.sync_api import expect

from agentlab.disk.runs import read_config, read_run
from agentlab.disk.store import RunStore
from agentlab.view.export import export
from agentlab.view.library import Library
from agentlab.view.server import make_app
from envs import actions as act
from envs.errors import StoreError, UsageError

EVIL = '<img src=x onerror="window.owned=1"><script>window.owned=1</script> </script><b>bold</b>'
UPDATE = {"method": "rosa", "accepted": True, "seconds": 0.01, "kl_mean": 0.0123, "evil": EVIL, "bad": float("nan")}


TOKENS = {
    "replies": [{"step": 0, "pieces": ["Click", EVIL], "before": [-0.1, -0.7], "after": [-0.05, -2.3]}, {"step": 1, "pieces": 7}]
}


def add_tokens(run: Path) -> Path:
    """What the first update of click-a did to the tokens of its first reply; its second reply's record is no such thing."""
    (run / "sessions/click-a_1/attempt_01/tokens.json").write_text(json.dumps(TOKENS))
    return run


def good_sessions():
    """Solved at attempt 3 and at once, ended by the machinery, and not over; texts that would like to be markup."""
    two = (EVIL, act.Click(40.0, 60.0)), ("Then drag", act.Drag(20.0, 30.0, 120.0, 180.0))
    guidance = [f"Failed before:\n- {colour} square {EVIL}\nDo otherwise." for colour in ("red", "blue")]
    return [
        (
            task("click-a"),
            [
                Made(steps=two, update=UPDATE, guidance_after=guidance[0]),
                Made(steps=((EVIL, act.Type(EVIL, True)),), guidance_after=guidance[1]),
                Made(True),
            ],
        ),
        (task("click-b"), [Made(True)]),
        (task("click-c"), [Made(), Made(broken="browser")]),
        (task("click-d"), [Made()]),
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Three runs: a good one with hostile texts, a damaged one, and one of another version."""
    folder = tmp_path_factory.mktemp("runs")
    add_tokens(make_run(folder / "good", good_sessions()))
    damaged = make_run(folder / "damaged", [(task("t"), [Made(), Made(True)]), (task("u"), [Made(True)])])
    attempt = damaged / "sessions/t_1/attempt_01"
    (attempt / "screens/000.webp").unlink()
    with (attempt / "events.jsonl").open("a") as file:
        file.write('{"event": "ste')
    (damaged / "sessions/u_1/attempt_01/result.json").write_text("{")
    (folder / "other").mkdir()
    (folder / "other/config.json").write_text('{"schema": 99}')
    return folder


@pytest.fixture(scope="module")
def address(runs):
    server = uvicorn.Server(uvicorn.Config(make_app([runs]), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline and thread.is_alive()
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=30)


@pytest.fixture(scope="module")
def client(address):
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        yield client


def key_of(client, name: str) -> str:
    return next(r["id"] for r in client.get("/api/index.json").json()["runs"] if r["name"] == name)


def test_runs_sessions_and_steps_come_as_they_were_recorded(client):
    index = {r["name"]: r for r in client.get("/api/index.json").json()["runs"]}
    assert (index["good"]["sessions"], index["good"]["ended"], index["good"]["solved"]) == (4, 3, 2)
    assert "schema 99" in index["other"]["problem"]
    run = client.get(f"/api/{index['good']['id']}.json").json()
    assert {s["name"]: s["outcomes"] for s in run["sessions"]} == {
        "click-a_1": ["failed", "failed", "solved"],
        "click-b_1": ["solved"],
        "click-c_1": ["failed", "broken"],
        "click-d_1": ["failed"],
    }
    session = client.get(f"/api/{run['id']}/click-a_1.json").json()
    one, two, three = session["attempts"]
    assert [s["actions"][0]["kind"] for s in one["steps"]] == ["click", "drag"] and one["steps"][0]["thought"] == EVIL
    assert one["steps"][0]["credit"] == -1 and one["reward"] == -1 and three["reward"] == 1
    assert two["guidance"] == one["guidance_after"] and three["guidance"] == two["guidance_after"]
    assert one["update"]["kl_mean"] == 0.0123 and one["update"]["bad"] is None


def test_screens_are_served_as_images_and_nothing_else_is(client, runs):
    key = key_of(client, "good")
    screen = client.get(f"/api/{key}/click-a_1/1/000.webp")
    assert screen.status_code == 200 and screen.headers["content-type"] == "image/webp" and screen.content[8:12] == b"WEBP"
    assert (
        screen.headers["x-content-type-options"] == "nosniff" and "default-src 'none'" in screen.headers["content-security-policy"]
    )
    session = runs / "good/sessions/click-b_1"
    (session / "attempt_01/screens/777.webp").symlink_to("/etc/passwd")
    (session / "attempt_09").symlink_to("/etc")
    (runs / "good/sessions/linked").symlink_to("/etc")
    for path in (
        f"/api/{key}/click-b_1/1/777.webp",
        f"/api/{key}/click-b_1/1/..%2Fresult.json",
        f"/api/{key}/click-b_1/1/%2e%2e%2f%2e%2e%2fconfig.json",
        f"/api/{key}/click-b_1/9/passwd",
        f"/api/{key}/click-b_1/..%2F1/000.webp",
        f"/api/{key}/..%2F..%2Fdamaged/1/000.webp",
        f"/api/{key}/linked.json",
        f"/api/{key}/..json",
        "/api/..%2Fother.json",
        "/server.py",
        "/..%2fserver.py",
        "/library.py",
    ):
        answer = client.get(path)
        assert answer.status_code == 404 and "root:" not in answer.text, path
    assert client.post("/api/index.json").status_code == 405


def test_head_is_answered_like_get_without_a_body(client):
    for address in ("/", "/style.css", "/api/index.json"):
        head, get = client.head(address), client.get(address)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]


def test_another_host_name_is_refused(client):
    assert client.get("/api/index.json", headers={"host": "evil.example"}).status_code == 400


def test_a_damaged_run_is_shown_and_says_what_is_missing(client):
    key = key_of(client, "damaged")
    sessions = {s["name"]: s for s in client.get(f"/api/{key}.json").json()["sessions"]}
    assert sessions["t_1"]["outcomes"] == ["failed", "solved"]
    (damaged,) = client.get(f"/api/{key}/u_1.json").json()["attempts"]
    assert any("corrupt" in p for p in damaged["problems"]) and not damaged["finished"]
    (one, two) = client.get(f"/api/{key}/t_1.json").json()["attempts"]
    assert one["steps"][0]["screen"] is None and two["steps"][0]["screen"] == "000.webp"
    assert any("incomplete" in p for p in one["problems"])
    assert client.get(f"/api/{key_of(client, 'other')}.json").status_code == 404


def test_a_changed_result_is_seen(tmp_path):
    run = make_run(tmp_path / "run", [(task("t"), [Made()])])
    library = Library([tmp_path])
    (key,) = library.runs()
    assert library.index()["runs"][0]["solved"] == 0
    assert dict(library.run(key)["summary"])["success@3"] == "0.0%"
    store = RunStore.open(run, read_config(run))
    make_attempt(store.session("t_1"), task("t"), 2, Made(True), "", True)
    store.close()
    assert library.index()["runs"][0]["solved"] == 1 and library.run(key)["sessions"][0]["outcomes"] == ["failed", "solved"]
    assert dict(library.run(key)["summary"])["success@3"] == "100.0%"


def test_only_what_has_changed_is_sent_again(tmp_path):
    run = make_run(tmp_path / "run", [(task("t"), [Made()]), (task("u"), [Made(True)])])
    library = Library([run])
    (key,) = library.runs()
    first = library.run(key)
    assert first["whole"] and [s["name"] for s in first["sessions"]] == ["t_1", "u_1"]
    again = library.run(key, first["version"])
    assert (again["version"], again["whole"], again["sessions"]) == (first["version"], False, [])
    store = RunStore.open(run, read_config(run))
    make_attempt(store.session("t_1"), task("t"), 2, Made(True), "", True)
    store.session("v_1").start_attempt(1)
    later = library.run(key, first["version"])
    assert {s["name"]: s["outcomes"] for s in later["sessions"]} == {"t_1": ["failed", "solved"], "v_1": ["running"]}
    store.session("t_1").set_aside(2)  # results.jsonl becomes another file
    store.close()
    assert {s["name"]: s["outcomes"] for s in library.run(key, later["version"])["sessions"]} == {"t_1": ["failed"]}
    shutil.rmtree(run / "sessions/u_1")
    gone = library.run(key, later["version"])
    assert gone["whole"] and [s["name"] for s in gone["sessions"]] == ["t_1", "v_1"]
    assert library.run(key, "somebody.else")["whole"]


def test_a_list_without_a_usable_results_file_is_made_from_the_attempts(tmp_path):
    run = make_run(tmp_path / "run", [(task("t"), [Made(), Made(True)]), (task("u"), [Made(True)])])
    (run / "sessions/u_1/attempt_01/result.json").write_text("{")
    results = run / "results.jsonl"
    lines = results.read_text().splitlines()
    for damaged in (None, "{\n" + lines[0] + "\n", "[]\n", json.dumps(json.loads(lines[0]) | {"score": "high"}) + "\n"):
        results.unlink(missing_ok=True)
        if damaged is not None:
            results.write_text(damaged)
        library = Library([run])
        shown = library.run(*library.runs())
        found = {s["name"]: s for s in shown["sessions"]}
        assert shown["note"].startswith(f"results.jsonl is {'missing' if damaged is None else 'damaged'}"), damaged
        assert found["t_1"]["outcomes"] == ["failed", "solved"] and "corrupt" in found["u_1"]["problem"], damaged
    results.write_text("{\n" + lines[0] + "\n")
    assert any("results.jsonl, line 1 is corrupt" in p for p in read_run(run).problems) and len(read_run(run).rows) == 2
    results.write_text(lines[0] + "\n" + lines[1][:40])  # torn: the rest is still to come
    (key,) = library.runs()
    assert library.run(key)["sessions"][0]["outcomes"] == ["failed", "running"] and library.run(key)["note"] == ""
    with results.open("a") as file:
        file.write(lines[1][40:] + "\n")
    assert library.run(key)["sessions"][0]["outcomes"] == ["failed", "solved"]
    assert dict(library.run(key)["summary"])["success@3"] == "100.0%"


def test_rows_of_sessions_that_are_not_there_and_links_are_not_shown(tmp_path):
    run = make_run(tmp_path / "run", [(task("t"), [Made(True)])])
    other = make_run(tmp_path / "other", [(task("secret"), [Made(True)])])
    shutil.rmtree(run / "sessions")
    (run / "sessions").symlink_to(other / "sessions")
    library = Library([run])
    (key,) = library.runs()
    assert library.run(key)["sessions"] == [] and read_run(run).rows == []
    with pytest.raises(UsageError):
        library.session(key, "secret_1")
    (run / "sessions").unlink()
    (run / "sessions/t_1/attempt_01").mkdir(parents=True)
    (run / "sessions/t_1/attempt_01/result.json").symlink_to(other / "sessions/secret_1/attempt_01/result.json")
    found = read_run(run)
    assert found.rows == [] and "leads out" in found.problems[0]
    (run / "sessions/t_1/attempt_01/result.json").unlink()
    os.mkfifo(run / "sessions/t_1/attempt_01/events.jsonl")  # would be waited for
    assert "not a file" in library.session(key, "t_1")["attempts"][0]["problems"][0]


def test_what_rescore_wrote_is_shown_beside_the_step(tmp_path):
    run = add_tokens(make_run(tmp_path / "run", good_sessions()))
    library = Library([run])
    (key,) = library.runs()
    first = library.session(key, "click-a_1")["attempts"][0]["steps"]
    assert first[0]["shift"]["after"] == [-0.05, -2.3] and first[1]["shift"] is None and first[0]["now"] == ""
    again = {"step": 1, "pieces": ["x"], "before": [-1.0], "after": [-2.0]}
    lines = [
        {
            "session": "click-a_1",
            "attempt": 1,
            "replies": [{**again, "step": 0}, again],
            "proposals": [{"now": "wait()"}, {"now": EVIL}],
        },
        {"session": "click-b_1", "attempt": "one", "replies": "none", "proposals": [3]},
        "no attempt",
    ]
    (run / "rescore").mkdir()
    (run / "rescore/rescore.json").write_text(json.dumps({"attempts": lines}))
    one, two = library.session(key, "click-a_1")["attempts"][0]["steps"]
    assert (one["now"], two["now"]) == ("wait()", EVIL)
    assert one["shift"]["after"] == [-0.05, -2.3] and two["shift"]["after"] == [-2.0]  # the run's own, then the rescoring's
    assert library.session(key, "click-b_1")["attempts"][0]["steps"][0]["now"] == ""
    (run / "rescore/rescore.json").write_text("{")
    assert library.session(key, "click-a_1")["attempts"][0]["steps"][1]["shift"] is None
    (run / "rescore/rescore.json").unlink()
    (run / "rescore/rescore.json").symlink_to("/etc/passwd")
    assert library.session(key, "click-a_1")["attempts"][0]["steps"][1]["now"] == ""


def test_exports_go_into_an_empty_folder_only(runs, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        export([runs], tmp_path)
    with pytest.raises(UsageError, match="no runs"):
        export([tmp_path], tmp_path / "out")
    with pytest.raises(UsageError, match="not a folder"):
        export([tmp_path / "mine"], tmp_path / "out")


# -- in a browser ------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    from envs.errors import SetupError
    from envs.miniwob.browser import find_browser

    try:
        executable = find_browser()
    except SetupError as error:
        pytest.skip(f"{error.message} {error.hint}")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(executable), args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    yield page
    assert complaints == []
    page.close()


def look_around(page):
    """What holds for the live page and the exported one: session click-a_1 of the good run is shown."""
    page.get_by_role("combobox").select_option(label="good: 2 of 3 solved")
    cards = page.locator(".attempt")
    expect(cards.locator("svg")).to_have_count(3)
    assert cards.count() == 3 and page.locator("#title").inner_text() == "click-a_1"
    first = cards.nth(0)
    assert first.locator(".thought").inner_text() == EVIL  # as text
    circle = first.locator("svg circle").first
    assert (circle.get_attribute("cx"), circle.get_attribute("cy")) == ("40", "60")
    box, picture = first.locator("svg").bounding_box(), first.locator("img").bounding_box()
    assert box == picture  # marks lie exactly over the screen
    assert page.locator(".reward").all_inner_texts() == ["−1 failed", "−1 failed", "+1 solved"]
    assert first.locator(".credit").inner_text() == "r -1.00"
    chips = first.locator(".token")
    first.locator(".tokens summary").click()
    assert [chip.split("\n")[-1] for chip in chips.all_inner_texts()] == ["90.5→95.1", "49.7→10.0"]
    assert chips.nth(1).locator("b").inner_text() == EVIL and "down" in chips.nth(1).get_attribute("class")
    assert page.locator(".tokens").count() == 1  # the other replies have none
    third = cards.nth(2)
    assert third.locator("ins").all_inner_texts() == ["blue"] and third.locator("del").all_inner_texts() == ["red"]
    page.keyboard.press("ArrowRight")
    expect(page.locator(".attempt polygon")).to_have_count(1)
    assert page.locator(".stage.past").count() == 2  # the shorter attempts show where they ended
    page.keyboard.press("ArrowDown")
    expect(page.locator("#title")).to_have_text("click-b_1")
    page.locator("#filter").fill("click-c")
    expect(page.locator("#sessions li")).to_have_count(1)
    page.locator("#filter").fill("")
    page.get_by_role("button", name="solved later 1").click()
    expect(page.locator("#sessions li")).to_have_text(["click-a_1"])  # the list is drawn anew
    assert page.evaluate("window.owned") is None and page.locator("script").count() == 3 and page.locator("main b").count() == 0


@pytest.mark.browser
def test_the_live_page(page, address, runs):
    page.goto(address)
    look_around(page)
    page.get_by_role("button", name="all 4").click()
    page.locator("li", has_text="click-d_1").click()
    expect(page.locator(".attempt")).to_have_count(1)
    store = RunStore.open(runs / "good", read_config(runs / "good"))  # the run goes on while somebody looks
    make_attempt(store.session("click-d_1"), task("click-d"), 2, Made(True), "", True)
    store.close()
    expect(page.locator(".attempt")).to_have_count(2)
    expect(page.locator(".reward")).to_have_text(["−1 failed", "+1 solved"])  # seen being made before, perhaps
    address_of_place = page.url
    page.goto("about:blank")
    page.goto(address_of_place)
    expect(page.locator("#title")).to_have_text("click-d_1")


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen_and_long_words_wrap(page, address, width):
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(address)
    good = page.locator("#runs option", has_text="good:").inner_text()  # its numbers are another test's to change
    page.get_by_role("combobox").select_option(label=good)
    expect(page.locator(".attempt svg")).to_have_count(3)
    page.evaluate("for (const p of document.querySelectorAll('#title, #instruction, .thought')) p.textContent = 'x'.repeat(3000)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".attempt").first.bounding_box()["width"] >= min(width - 40, 340)
    if folder := os.environ.get("AGENTLAB_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/view-{width}.png", full_page=True)


@pytest.mark.browser
def test_an_export_opens_from_disk(page, tmp_path):
    good = add_tokens(make_run(tmp_path / "good", good_sessions()))
    assert export([good], tmp_path / "out") == 4
    page.goto((tmp_path / "out/index.html").as_uri())
    look_around(page)
    assert "exported" in page.locator("footer").inner_text()
    names = {p.suffix for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert names == {".html", ".js", ".css", ".webp"}


def test_json_is_strict(client):
    text = client.get(f"/api/{key_of(client, 'good')}/click-a_1.json").text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
