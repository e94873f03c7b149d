"""A control without reward, after SLOT (arXiv 2505.12392)."""
