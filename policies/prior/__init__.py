"""θ₁ out of stored tokens: what a session starts from when earlier sessions have left something to learn from."""
