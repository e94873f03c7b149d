"""The guest half of the light desktop: OSWorld's HTTP protocol over Xvfb, plus exact input.  Runs inside the container only."""
