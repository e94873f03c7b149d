"""The paper's reinforcement-learning baseline (ROSA App. E.4.1)."""
