"""What the stand-in phone has on it: applications, what lies on a screen, and everything that a snapshot holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

LAUNCHER = "com.google.android.apps.nexuslauncher/.NexusLauncherActivity"
SETTINGS = "com.android.settings/.Settings"
CONTACTS = "com.google.android.contacts/com.android.contacts.activities.PeopleActivity"
TASKS_DATABASE = "data/data/org.tasks/databases/database"

APPS = {
    "Settings": SETTINGS,
    "Contacts": CONTACTS,
    "Chrome": "com.android.chrome/com.google.android.apps.chrome.Main",
    "Camera": "com.android.camera2/com.android.camera.CameraLauncher",
    "Clock": "com.google.android.deskclock/com.android.deskclock.DeskClock",
    "Files": "com.google.android.documentsui/com.android.documentsui.files.FilesActivity",
    "Markor": "net.gsantner.markor/net.gsantner.markor.activity.MainActivity",
    "Clipper": "ca.zgrs.clipper/ca.zgrs.clipper.Main",
    "Tasks": "org.tasks/com.todoroo.astrid.activity.MainActivity",
    "OsmAnd": "net.osmand/net.osmand.plus.activities.MapActivity",
    "Calendar": "com.simplemobiletools.calendar.pro/com.simplemobiletools.calendar.pro.activities.MainActivity",
    "Gallery": "com.simplemobiletools.gallery.pro/com.simplemobiletools.gallery.pro.activities.MainActivity",
}
"""Title under the icon, and activity, in the launcher's order."""

SETTINGS_ROWS = [
    "Network & internet", "Connected devices", "Apps", "Notifications", "Battery", "Storage", "Sound & vibration", "Display",
    "Wallpaper & style", "Accessibility", "Security", "Privacy", "Location", "Safety & emergency", "Passwords & accounts",
    "Digital Wellbeing", "Google", "System", "About emulated device", "Tips & support", "Developer options",
]  # fmt: skip
FIELDS = {"First name": "first", "Last name": "last", "Phone": "phone"}
LABELS = ["Mobile", "Home", "Work"]


@dataclass
class Node:
    """One thing on the screen; ``box`` is (left, top, right, bottom) in pixels."""

    box: tuple[int, int, int, int]
    text: str = ""
    desc: str = ""
    hint: str = ""
    kind: str = "label"  # label, button, field, switch, slider, list
    checked: bool = False
    focused: bool = False
    tap: Callable[[int, int], None] | None = None
    hold: Callable[[], None] | None = None

    def has(self, x: int, y: int) -> bool:
        return self.box[0] <= x < self.box[2] and self.box[1] <= y < self.box[3]


@dataclass
class State:
    """Everything that a snapshot of the phone holds, except its files."""

    stack: list[str] = field(default_factory=lambda: [LAUNCHER])
    settings: dict[str, dict[str, str]] = field(
        default_factory=lambda: {
            "global": {"wifi_on": "1", "bluetooth_on": "1", "airplane_mode_on": "0"},
            "system": {"screen_brightness": "102"},
            "secure": {},
        }
    )
    contacts: list[list[str]] = field(default_factory=list)
    form: dict[str, str] = field(default_factory=dict)
    focus: str = ""
    selected: bool = False
    dark: bool = False
    offset: int = 0
    icons: list[str] = field(default_factory=lambda: list(APPS))
    clipboard: str = ""
    gestures: list[str] = field(default_factory=list)
