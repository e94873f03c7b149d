"""Parts that others bring: what is loaded, what is refused, and what a person is told when it is broken."""

import sys
from importlib.metadata import entry_points

import pytest

from envs.errors import UsageError
from envs.plugins import Plugins, is_module_name, load_module_name, only_named

METHODS = Plugins("method", "agentlab.test_methods")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory, importable for ``module:Name`` only; what was imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("text", ["a:B", "a.b.c:D", "a:B.c", "größe:Ä"])
def test_module_names_are_recognised(text):
    assert is_module_name(text)


@pytest.mark.parametrize(
    "text", ["a", "a:", ":b", "a/b:c", "a:b-c", "openai:gpt-4.1", "127.0.0.1:5000", "a.:b", "a:b:c", "C:\\x", "a:b\n"]
)
def test_other_texts_are_not(text):
    assert not is_module_name(text)


def test_a_file_of_the_current_directory_is_loaded_and_its_neighbours_with_it(folder):
    (folder / "neighbour_q.py").write_text("VALUE = 7\n")
    (folder / "mine_q.py").write_text(
        "class Outer:\n    def inner():\n        import neighbour_q\n        return neighbour_q.VALUE\n"
    )
    assert METHODS.load("mine_q:Outer.inner")() == 7


def test_the_current_directory_never_shadows_what_is_installed(folder):
    (folder / "policies.py").write_text("raise SystemExit('shadowed')\nclass Mine: ...\n")
    with pytest.raises(UsageError) as failed:
        METHODS.load("policies:Mine")
    assert "has no 'Mine'" in failed.value.message and str(folder) not in failed.value.message


@pytest.mark.parametrize(
    ("text", "content", "says"),
    [
        ("absent_q:m", None, "no module 'absent_q'"),
        ("broken_q:m", "def f(:\n", "broken_q.py, line 1"),
        ("broken_q:m", "x = 1\n1 / 0\n", "line 2"),
        ("broken_q:m", "import not_there_q\n", "imports 'not_there_q', which is not installed"),
        ("broken_q:m", "import sys\nsys.exit(3)\n", "SystemExit: 3"),
        ("broken_q:m", "method = 1\n", "has no 'm'"),
        ("broken_q:method.more", "method = 1\n", "has no 'more'"),
        ("no-module", None, "no method 'no-module'"),
    ],
)
def test_what_is_broken_is_one_message(folder, text, content, says):
    if content is not None:
        (folder / "broken_q.py").write_text(content)
    with pytest.raises(UsageError) as failed:
        METHODS.load(text)
    assert says in failed.value.message


def test_a_misspelt_name_is_answered_with_the_nearest(folder):
    (folder / "mine_q.py").write_text("def my_method(): ...\n")
    with pytest.raises(UsageError, match="Did you mean 'my_method'"):
        METHODS.load("mine_q:my_metod")


def test_a_run_directory_names_no_code(folder):
    (folder / "mine_q.py").write_text("from pathlib import Path\nPath('executed').touch()\nm = n = 1\n")
    with only_named("mine_q:n", None), pytest.raises(UsageError, match="name it yourself"):
        load_module_name("mine_q:m", "method")
    assert not (folder / "executed").exists()
    with only_named("mine_q:m"):
        assert load_module_name("mine_q:m", "method") == 1
    assert load_module_name("mine_q:n", "method") == 1  # a user's own settings again


def test_installed_parts_are_found_by_name_and_a_broken_one_does_not_break_the_others(folder):
    info = folder / "others_q-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others-q\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[agentlab.test_methods]\ngood = others_q:good\nbad = others_q:bad\nworse = absent_q:x\n"
    )
    (folder / "others_q.py").write_text("good = 'loaded'\n")
    sys.path.append(str(folder))
    assert list(METHODS.installed()) == ["bad", "good", "worse"] == sorted(p.name for p in entry_points(group=METHODS.group))
    assert METHODS.load("good") == "loaded"
    for name in ("bad", "worse"):
        with pytest.raises(UsageError, match="of others-q cannot be loaded") as failed:
            METHODS.load(name)
        assert "pip uninstall others-q" in failed.value.hint
    with pytest.raises(UsageError, match="Did you mean 'good'"):
        METHODS.load("goood")
