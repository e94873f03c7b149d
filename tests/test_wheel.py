"""A wheel is the whole product: what a clone has, an installation from the wheel has too."""

import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agentlab", "envs", "policies", "retrospect")
BUILD = """
import sys
from setuptools import build_meta
print(build_meta.build_wheel(sys.argv[1]))
"""


def tracked():
    """Names of the files of the clone."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no clone: git does not list its files")
    return listed.stdout.splitlines()


def test_every_kind_of_file_is_named_in_the_settings_of_the_build():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for name in (Path(name) for name in tracked() if name.split("/")[0] in PACKAGES and not name.endswith(".py")):
        folders = {".".join(parent.parts): name.relative_to(parent) for parent in name.parents if parent.parts}
        inner = [(pattern, str(rest)) for package, rest in folders.items() for pattern in data.get(package, [])]
        assert any(fnmatch(name.name, pattern) for pattern in data["*"]) or any(
            fnmatch(rest, pattern) for pattern, rest in inner
        ), name


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Names of the files in a wheel of this tree, as ``pip`` would build it."""
    setuptools = pytest.importorskip("setuptools", reason="pip install 'setuptools>=77' builds the wheel")
    if int(setuptools.__version__.partition(".")[0]) < 77:
        pytest.skip("pip install 'setuptools>=77' builds the wheel")
    files = tracked()
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in files:
        if name.split("/")[0] in (*PACKAGES, "dockerfiles") or "/" not in name:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).symlink_to((ROOT / name).resolve())
    subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=tree, check=True, capture_output=True, timeout=300)
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist()), files


def test_every_file_of_the_packages_and_every_dockerfile_is_in_it(names):
    there, files = names
    wanted = {name for name in files if name.split("/")[0] in PACKAGES}
    wanted |= {f"envs/containers/{name}" for name in files if name.startswith("dockerfiles/")}
    assert not wanted - there
    assert {"envs/containers/dockerfiles/osworld-desktop/Dockerfile", "agentlab/view/index.html"} <= there


def test_nothing_else_is_in_it(names):
    there, _ = names
    tops = {name.split("/")[0] for name in there}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert not [name for name in there if "__pycache__" in name]
