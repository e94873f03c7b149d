"""Runs carried to and from the formats of others."""
