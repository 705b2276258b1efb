"""Folders of runs: writing and reading them, and collecting them into tables."""
