"""For every test: small machines stay usable, nothing is fetched from a model hub, and no secret outlives its test."""

import os
from collections.abc import Iterator

import pytest

# Before anything imports torch or a hub client; processes started by tests inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _secrets_of_one_test_only() -> Iterator[None]:
    """A key that a test gave ("other") would be taken out of the texts of every later test of this process."""
    from envs import redaction

    before = set(redaction._told)
    yield
    redaction._told.clear()
    redaction._told.update(before)


@pytest.fixture(scope="module")
def one_browser() -> Iterator[None]:
    """The runs that a module's tests make in this process share a Chromium, which would start and end with each of them."""
    from envs.miniwob.browser import Browser

    browser = Browser.acquire()
    yield
    browser.release()
