"""The viewer over ten thousand attempts: what a request reads and sends, and what is in the page, does not grow with them."""

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import viewer

from agentlab.view import catalog
from agentlab.view.library import Library
from envs.errors import SetupError
from envs.miniwob.browser import find_browser

ATTEMPTS = 10_000


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    return viewer.make_large_run(tmp_path_factory.mktemp("large") / "run", ATTEMPTS)


class Opened:
    """Files below a folder that are opened while it is ``on``, and how often folders are listed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.on, self.seen = str(folder.resolve()), False, []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if self.on and event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(self.folder):
            self.seen.append(os.path.relpath(str(arguments[0]), self.folder))

    def __enter__(self) -> list[str]:
        self.on, self.seen = True, []
        return self.seen

    def __exit__(self, *_: object) -> None:
        self.on = False


def test_a_list_reads_one_file_and_a_poll_reads_what_is_new(large, monkeypatch):
    library, opened = Library([large]), Opened(large)
    read: list[int] = []
    real = catalog.parse_row
    monkeypatch.setattr(catalog, "parse_row", lambda data, where: (read.append(len(data)), real(data, where))[1])
    with opened as seen:
        (line,) = library.index()["runs"]
        first = library.run(line["id"])
    assert set(seen) == {"config.json", "results.jsonl", "sessions"} and len(seen) <= 4
    assert line["sessions"] == line["ended"] == len(first["sessions"]) == 4000
    assert len(read) == ATTEMPTS
    assert sum(len(s["outcomes"]) for s in first["sessions"]) == ATTEMPTS

    read.clear()
    with opened as seen:
        library.index()
        again = library.run(line["id"], first["version"])
    assert seen == [] and read == [] and again["sessions"] == []

    viewer.add_attempt(large, "newest-a")
    with opened as seen:
        library.index()
        later = library.run(line["id"], first["version"])
    assert set(seen) == {"results.jsonl", "sessions"} and len(read) == 1 and read[0] < 1000
    assert [s["task"] for s in later["sessions"]] == ["newest-a_1"]
    assert len(json.dumps(later)) < 8000

    with opened as seen:
        library.session(line["id"], first["sessions"][7]["name"])
    assert {Path(path).parts[:2] for path in seen} == {("sessions", first["sessions"][7]["name"])}


@pytest.mark.browser
def test_the_page_holds_what_is_seen_of_the_list(large):
    from playwright.sync_api import expect, sync_playwright

    try:
        executable = find_browser()
    except SetupError as error:
        pytest.skip(f"{error.message} {error.hint}")
    with viewer.served(large) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(executable), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(120_000)
        expect.set_options(timeout=120_000)

        def chosen(place: int):
            expect(page.locator("#sessions li[aria-current=true]")).to_have_attribute("aria-posinset", str(place))
            expect(page.locator("#sessions li[aria-current=true]")).to_be_in_viewport()
            expect(page.locator(".attempt svg").first).to_be_visible()
            assert page.evaluate("document.querySelectorAll('*').length") < 1000
            assert page.locator("#sessions li").count() < 100

        page.goto(address)
        chosen(1)
        for _ in range(3):
            page.keyboard.press("ArrowDown")
        chosen(4)
        page.keyboard.press("PageDown")
        jump = int(page.locator("#sessions li[aria-current=true]").get_attribute("aria-posinset")) - 4
        assert 10 < jump < 40
        chosen(4 + jump)
        page.keyboard.press("PageUp")
        chosen(4)

        total = int(page.locator("#sessions li").first.get_attribute("aria-setsize"))
        assert total >= 4000
        page.evaluate("document.getElementById('list').scrollTop = 1e9")
        last = page.locator(f"#sessions li[aria-posinset='{total}']")
        expect(last).to_be_in_viewport()
        assert page.locator("#sessions li").count() < 100
        name = last.get_attribute("data-name")
        last.click()
        chosen(total)
        page.reload()  # the place is in the address
        chosen(total)
        assert page.locator("#title").inner_text() == name

        sizes = []
        page.on(
            "response", lambda answer: sizes.append(answer.headers.get("content-length", "0")) if "since=" in answer.url else None
        )
        viewer.add_attempt(large, "newest-b")  # seen without anybody's doing
        expect(page.locator("#sessions li").first).to_have_attribute("aria-setsize", str(total + 1))
        assert sizes and max(int(size) for size in sizes) < 8000
        page.fill("#filter", "newest-b")
        expect(page.locator("#sessions li")).to_have_text(["newest-b_1"])
        page.get_by_role("button", name="not solved 1000").click()
        expect(page.locator("#sessions li")).to_have_count(0)
        page.fill("#filter", "")
        expect(page.locator("#sessions li").first).to_have_attribute("aria-setsize", "1000")
        browser.close()
