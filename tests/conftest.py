"""For every test: small machines stay usable, and nothing is fetched from a model hub."""

import os

# Before anything imports torch or a hub client; processes started by tests inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
