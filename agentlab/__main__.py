"""``python -m agentlab``, and the console script ``agentlab``: our packages are looked for before anything of them is imported."""

from agentlab.house import require_ours


def main() -> None:
    """The command line."""
    require_ours()
    from agentlab.cli.app import main as command_line

    command_line()


if __name__ == "__main__":
    main()
