"""The ports of OSWorld's guests, whatever they are published as."""

SERVER, CHROMIUM, VLC, VNC = 5000, 9222, 8080, 8006
ORDER = (SERVER, CHROMIUM, VNC, VLC)
"""As an address names them, and as desktop-env writes it."""
NAMES = {SERVER: "server", CHROMIUM: "browser debugging", VNC: "VNC", VLC: "VLC"}
