"""Starts the grader's program; only this folder can be imported from, nothing else that lies near it."""

import importlib
import importlib.util
import sys
from pathlib import Path

PACKAGE = "agentlab_grader"

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
    importlib.import_module(f"{PACKAGE}.program").main()
