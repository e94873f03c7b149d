"""Where actions happen: MiniWoB++, OSWorld and AndroidWorld as Gymnasium environments, and their containers.  Part of rosa-agentlab."""

from envs.registration import register_all

register_all()
