"""Where actions happen: MiniWoB++, OSWorld and AndroidWorld as Gymnasium environments, and the containers they run in."""

from envs.registration import register_all

register_all()
