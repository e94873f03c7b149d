"""Questions in text, one answer per attempt, graded by verifiers: the reasoning tasks of the papers' tables, in the same loop."""
