"""Where actions happen: MiniWoB++, OSWorld and AndroidWorld as Gymnasium environments, and the containers they run in."""
