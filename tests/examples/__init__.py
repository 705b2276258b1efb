"""Detectors as a newcomer would write them, each wrapped in three lines."""
