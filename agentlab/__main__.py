"""``python -m agentlab`` is ``agentlab``."""

from agentlab.cli.app import main

main()
