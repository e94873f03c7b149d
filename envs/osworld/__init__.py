"""OSWorld: real desktops in containers, driven over OSWorld's own guest protocol."""
