"""What pyproject.toml cannot say: the Dockerfiles, which lie beside the packages, belong to a wheel too."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithDockerfiles(build_py):
    """Puts ``dockerfiles/`` where an installed :mod:`envs.containers` looks for it; an editable installation has the clone's."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            there = Path(self.build_lib) / "envs" / "containers" / "dockerfiles"
            shutil.copytree("dockerfiles", there, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


setup(cmdclass={"build_py": WithDockerfiles})
