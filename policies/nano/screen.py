"""Sizes of the bundled policy's screen: MiniWoB++'s viewport, cut into cells."""

SCREEN_WIDTH, SCREEN_HEIGHT = 160, 220
PATCH, MERGE = 10, 2
CELL = PATCH * MERGE
"""One visual token of the language model sees CELL x CELL pixels."""
PATCH_ROWS, PATCH_COLS = SCREEN_HEIGHT // PATCH, SCREEN_WIDTH // PATCH
GRID_ROWS, GRID_COLS = SCREEN_HEIGHT // CELL, SCREEN_WIDTH // CELL
PATCHES, CELLS = PATCH_ROWS * PATCH_COLS, GRID_ROWS * GRID_COLS
COORDINATE_TINT = 0.3
