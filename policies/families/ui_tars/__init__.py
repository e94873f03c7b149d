"""UI-TARS: its prompt, its action language, and the policy that speaks both."""
