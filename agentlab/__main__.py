"""``python -m agentlab``, and the console script ``agentlab``: our packages are looked for before anything of them is imported."""

import resource
import sys

from agentlab.house import EXIT_CODE, require_ours

LEAST_MEMORY = 2 * 2**30
"""Bytes of address space that numpy, scipy and torch need to be loaded at all."""

INTERRUPTED = 130
"""Exit code of a program that Ctrl-C ended (128 + SIGINT)."""


def require_memory() -> None:
    """End the process with one message where the shell's limit is too low: OpenBLAS would ask for its memory again without end."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_MEMORY:
        sys.stderr.write(
            f"error: This shell allows a process {limit // 2**20} MB of memory, and agentlab needs {LEAST_MEMORY // 2**20} MB.\n"
            "Raise the limit: `ulimit -v unlimited`.\n"
        )
        sys.exit(EXIT_CODE)


def main() -> None:
    """The command line; Ctrl-C ends it without a traceback, also while libraries are still being imported."""
    try:
        require_ours()
        require_memory()
        from agentlab.cli.app import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
