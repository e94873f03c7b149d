"""Folders of sessions: one for every task, whatever tasks are called, on every file system."""

import itertools
import re
import unicodedata

import pytest

from agentlab.disk.names import FOLDER, folder_name
from envs.base import TaskSpec

NAMES = [
    "a/b-c", "a-b/c", "a/b/c", "a-b-c", "a b c", "a+b+c", "a+b/c", "a", "A", "a.", "a..", ".a", "..", ".", "/", "//", "", " ", "-a", "~a",
    "click-test", "Click-Test", "click_test", "click-test/", "/click-test", "click~test", "office/表格", "office/图片", "表格", "图片",
    "é", unicodedata.normalize("NFD", "é"), "x" * 99, "x" * 100, "x" * 101, "x" * 300, "x" * 299 + "y", "表" * 300, "表" * 299 + "格",
    "con", "nul.txt", "a\nb", "a\tb", "a\0b", "a\x1b[31mb", "a:b", "a\\b", "\ud800", "a-b-c~", "<b>", "%2e%2e", "a%2fb",
]  # fmt: skip


def ids():
    return [TaskSpec("e", name, seed, 3).id for name in NAMES for seed in (0, 1, 12)]


def test_no_two_tasks_share_a_folder_not_even_where_case_and_accents_do_not_count():
    folders = [folder_name(task) for task in ids()]
    assert len({unicodedata.normalize("NFKC", f).casefold() for f in folders}) == len(set(ids())) == 3 * len(NAMES)
    assert all(FOLDER.fullmatch(f) and not f.endswith(".") and len(f.encode()) <= 200 for f in folders)


def test_a_folder_name_of_one_task_is_never_that_of_a_task_called_like_it():
    folders = {folder_name(task): task for task in ids()}
    assert all(folder_name(folder) not in folders or folders[folder_name(folder)] == folder for folder in folders)


@pytest.mark.parametrize(("task", "folder"), [("click-test-2_0", "click-test-2_0"), ("chrome/a1b2-c3_0", "chrome+a1b2-c3_0")])
def test_the_names_of_our_benchmarks_stay_readable(task, folder):
    assert folder_name(task) == folder
    assert re.fullmatch(r"ContactsAddContact_1~[0-9a-f]{16}", folder_name("ContactsAddContact_1"))


def test_the_id_of_an_instance_says_its_name_and_its_seed():
    """The seed is a number, so it is what follows the last underscore, whatever the name has."""
    names, seeds = ["a", "a_", "a_1", "_a", "a_1_2", "1", "_", "__1"], [0, 1, 2, 12, 21]
    made = {TaskSpec("e", name, seed, 3).id: (name, seed) for name, seed in itertools.product(names, seeds)}
    assert len(made) == len(names) * len(seeds)
    assert all((name, str(seed)) == tuple(task.rsplit("_", 1)) for task, (name, seed) in made.items())
