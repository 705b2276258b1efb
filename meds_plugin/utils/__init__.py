"""Utilities for all packages: errors, files, locks, progress bars, random generators."""
