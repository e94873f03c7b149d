"""What decides the next action, and can be adapted between attempts: UI-TARS, its LM-head adapters, ROSA.  Part of rosa-agentlab."""
