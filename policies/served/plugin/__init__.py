"""What runs inside vLLM's own environment: the worker's heads, the engine behind the routes, and the server's process.

Imports torch, vLLM, safetensors, FastAPI (which vLLM brings) and those modules of ours that need no more than that.
"""
