"""What vLLM's processes are told of us: its ``general_plugins`` entry point."""

from __future__ import annotations


def register() -> None:
    """Called in each of vLLM's processes: the bundled policy's picture processor becomes known by its name."""
    from transformers import AutoImageProcessor, PreTrainedConfig

    from policies.nano.processor import NanoImageProcessor

    class NanoConfig(PreTrainedConfig):  # type: ignore[misc]
        model_type = "agentlab_nano"

    AutoImageProcessor.register(NanoConfig, slow_image_processor_class=NanoImageProcessor, exist_ok=True)
