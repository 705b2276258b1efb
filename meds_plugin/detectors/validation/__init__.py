"""Tries a detector on two images before anything is trained."""
