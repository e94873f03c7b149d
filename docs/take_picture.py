"""Takes docs/img/viewer.png: one session of a run, as `agentlab view` shows it in headless Chromium.

agentlab run miniwob --adapt rosa2 --attempts 5 --limit 100 --seed 0
python docs/take_picture.py runs/miniwob-ui-tars-nano-rosa2-s0 [SESSION]
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from agentlab.disk.names import folder_name
from agentlab.disk.runs import read_run
from agentlab.results.metrics import ended_sessions
from agentlab.view.export import export
from envs.miniwob.browser import find_browser

PICTURE = Path(__file__).parent / "img/viewer.png"
SIZE = {"width": 1410, "height": 900}
FIT = 3
"""Attempts beside each other at this size."""


def telling(run_dir: Path) -> str:
    """A session that was solved after failures, by as many attempts as fit beside each other; else the first one."""
    found = ended_sessions(read_run(run_dir).rows)
    later = [s for s in found if s.failed_first and s.solved_at is not None and s.attempts <= FIT]
    return folder_name(max(later or found[:1], key=lambda s: s.attempts).task)


def main() -> None:
    """Export the run, open it, go to the session, unfold the tokens, and save what is seen."""
    run_dir = Path(sys.argv[1])
    session = sys.argv[2] if len(sys.argv) > 2 else telling(run_dir)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        export([run_dir], Path(folder) / "view")
        browser = playwright.chromium.launch(executable_path=str(find_browser()), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(120_000)
        page.goto(f"{(Path(folder) / 'view/index.html').as_uri()}#{run_dir.name}/{session}")
        page.locator("#title", has_text=session).wait_for()
        page.locator(".attempt .stage svg").first.wait_for()
        for summary in page.locator(".attempt .tokens summary").all()[:FIT]:
            summary.click()
        seen = page.screenshot()
        browser.close()
    picture = Image.open(io.BytesIO(seen)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(PICTURE, optimize=True)
    print(f"{PICTURE}: {session}, {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
