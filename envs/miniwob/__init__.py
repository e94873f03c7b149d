"""MiniWoB++ (Shi et al. 2017, Liu et al. 2018; pages from the ``miniwob`` package) in a real headless Chromium."""
