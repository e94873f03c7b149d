"""What the applications of a real phone have made on their first start: their databases and folders, from upstream's own row types.

Needs upstream's package.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

FOLDERS = (
    "DCIM", "Pictures", "Movies", "Music", "Download", "Documents/Markor",
    "Android/data/com.dimowner.audiorecorder/files/Music/records", "Android/data/net.osmand/files/tracks",
)  # fmt: skip
MARKED = "CREATE TABLE IF NOT EXISTS PlaylistEntity (playlist_id INTEGER PRIMARY KEY, playlist_name TEXT)"
SONGS = (
    "CREATE TABLE IF NOT EXISTS SongEntity (song_key INTEGER PRIMARY KEY, playlist_creator_id INTEGER, id INTEGER, title TEXT, "
    "duration INTEGER)"
)
QUEUE = "CREATE TABLE IF NOT EXISTS playing_queue (_id INTEGER PRIMARY KEY, title TEXT)"


def tables() -> dict[str, list[tuple[str, Any, str]]]:
    """Database -> (table, row type of upstream's, key)."""
    from android_world.task_evals.utils import sqlite_schema_utils as rows

    return {
        "com.arduia.expense/databases/accounting.db": [("expense", rows.Expense, "expense_id")],
        "com.flauschcode.broccoli/databases/broccoli": [("recipes", rows.Recipe, "recipeId")],
        "com.simplemobiletools.calendar.pro/databases/events.db": [("events", rows.CalendarEvent, "id")],
        "de.dennisguse.opentracks/databases/database.db": [("tracks", rows.SportsActivity, "_id")],
        "net.cozic.joplin/databases/joplin.sqlite": [
            ("notes", rows.JoplinNote, ""), ("notes_normalized", rows.JoplinNormalizedNote, ""), ("folders", rows.JoplinFolder, ""),
        ],
        "net.osmand/databases/map_markers_db": [("map_markers", rows.OsmAndMapMarker, "")],
    }  # fmt: skip


def statement(table: str, row: Any, key: str) -> str:
    """CREATE TABLE with the fields of ``row``; ``key`` counts by itself."""
    columns = [
        f'"{field.name}" {"INTEGER PRIMARY KEY AUTOINCREMENT" if field.name == key else ""}' for field in dataclasses.fields(row)
    ]
    return f'CREATE TABLE IF NOT EXISTS "{table}" ({", ".join(columns)})'


def make(files: Path) -> None:
    """Everything, below the stand-in's ``files``."""
    for folder in FOLDERS:
        (files / "storage/emulated/0" / folder).mkdir(parents=True, exist_ok=True)
    wanted = {name: [statement(*table) for table in found] for name, found in tables().items()}
    wanted["code.name.monkey.retromusic/databases/playlist.db"] = [MARKED, SONGS]
    wanted["code.name.monkey.retromusic/databases/music_playback_state.db"] = [QUEUE]
    for name, statements in wanted.items():
        path = files / "data/data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(path) as database:
            for one in statements:
                database.execute(one)
        database.close()
