"""How the weights learn between two attempts: what a method is, and what methods share.

A method is a config class and an update rule:

    class NudgeConfig(AdapterConfig, MethodConfig):
        step: float = Field(default=0.1, description="…")

    def nudge(head, adapter, episode, config, *, seed) -> Learned:
        …

    method = Method(NudgeConfig, nudge)                      # --set adapt.weights.method=my.module:method

The rule gets H, y and W of the failed attempt as a :class:`~policies.head_pass.HeadPass`, the adapter in force (None before the first
accepted update), the rewards as an :class:`~policies.methods.episode.Episode`, and gives the new adapter, or None to leave it, with
the numbers to record (:class:`~policies.methods.effect.Learned`).  It raises AdaptationError where it cannot.  Capturing, undo,
saving and resuming are :class:`~policies.learner.HeadLearner`'s.
"""

from policies.adapters.config import AdapterConfig
from policies.methods.config import MethodConfig, NoneConfig, TokensConfig, WeightsConfig
from policies.methods.method import Method

__all__ = ["AdapterConfig", "Method", "MethodConfig", "NoneConfig", "TokensConfig", "WeightsConfig"]
