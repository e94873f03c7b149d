"""The command line in the tests' own process: what ``python -m agentlab …`` does and prints, without importing everything again.

Importing a policy's libraries takes longer than most of the runs that tests make.  Where a process of its own is what is tested (it is
killed, interrupted, or compared with another one), it is started as a user's is.
"""

from __future__ import annotations

import contextlib
import io
import logging
import subprocess
import sys

import pytest

from agentlab.cli import app as cli


def agentlab(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it with these arguments and further variables; its exit code and what it printed."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    command = ["agentlab", *map(str, arguments)]
    warnings = logging.StreamHandler(err)  # Python prints them where nobody has set up logging, which pytest has
    warnings.setLevel(logging.WARNING)
    logging.getLogger().addHandler(warnings)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", command)
        for name, value in environment.items():
            patch.setenv(name, value)
        code: object = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
        finally:
            logging.getLogger().removeHandler(warnings)
    printed = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return subprocess.CompletedProcess(command, int(code or 0), *printed)
