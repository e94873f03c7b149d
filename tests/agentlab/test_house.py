"""Somebody else's ``envs``, ``policies`` or ``retrospect`` in the place of ours: one message with the remedy, before anything starts."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = "from agentlab.__main__ import main; main()"
"""What the console script does."""


def started(*arguments, cwd, path=()):
    """Python with these folders before everything else: (exit code, what it printed on standard error)."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


@pytest.fixture(params=["envs/__init__.py", "policies.py", "retrospect/__init__.py"])
def theirs(request, tmp_path):
    """A folder with something of the user's that has a name of ours; it must not be executed."""
    file = tmp_path / request.param
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise SystemExit('executed')\n")
    return file


def test_a_folder_with_a_name_of_ours_is_one_message(theirs):
    folder = next(parent for parent in theirs.parents if parent.name not in ("envs", "retrospect"))
    for arguments, path in ((["-m", "agentlab", "--version"], [ROOT]), (["-c", SCRIPT, "--version"], [folder, ROOT])):
        code, said = started(*arguments, cwd=folder, path=path)
        assert code == 3 and str(theirs) in said and "Rename" in said and said.count("\n") == 2, said


def test_the_console_script_does_not_mind_the_current_directory(theirs):
    folder = next(parent for parent in theirs.parents if parent.name not in ("envs", "retrospect"))
    assert started("-P", "-c", SCRIPT, "--version", cwd=folder, path=[ROOT]) == (0, "")


@pytest.mark.parametrize("damage", ["overwritten", "removed"])
def test_a_distribution_installed_over_ours_is_one_message(tmp_path, damage):
    """What `pip install envs` does to an installation that is not a checkout, and what `pip uninstall envs` then leaves."""
    for package in ("agentlab", "envs", "policies", "retrospect"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("weights", "__pycache__", "tasks"))
    init = tmp_path / "envs" / "__init__.py"
    init.write_text(textwrap.dedent('"""Analysis of environment variables."""\n')) if damage == "overwritten" else init.unlink()
    code, said = started("-c", SCRIPT, "--version", cwd=tmp_path, path=[tmp_path])
    assert code == 3 and "pip uninstall envs" in said and "--force-reinstall" in said, said


def test_a_distribution_that_is_found_before_ours_is_one_message(tmp_path):
    site = tmp_path / "site-packages"
    (site / "envs").mkdir(parents=True)
    (site / "envs" / "__init__.py").write_text("")
    code, said = started("-c", SCRIPT, "--version", cwd=tmp_path, path=[site, ROOT])
    assert code == 3 and "hidden by another distribution" in said and "pip uninstall envs" in said
