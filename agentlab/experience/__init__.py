"""What sessions leave for later ones: a directory of plain files, read when a session starts, added to in rounds."""
