"""A run's folder: written, read, and collected into tables."""
