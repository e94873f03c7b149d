"""Models served by vLLM with the weights axis: the server's side under ``plugin``, what both sides say in ``wire``."""
