"""The attempt loop and what a run is made of: configuration, sessions, workers, progress."""
