"""Model families: how each is asked, and how its replies are read."""
