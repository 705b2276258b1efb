"""Scores new images with a trained detector, and exports it."""
