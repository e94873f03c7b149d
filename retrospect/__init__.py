"""Looks back on a failed trace: evidence, critique, guidance (words) and per-step credit (for the weights).  Part of rosa-agentlab."""
