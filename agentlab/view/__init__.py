"""Runs in the browser: a local page, or a bundle of files that opens without a server."""
