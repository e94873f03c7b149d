"""``python -m agentlab`` is ``agentlab``."""

from agentlab.cli import main

main()
