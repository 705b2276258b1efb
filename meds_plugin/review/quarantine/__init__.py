"""Dropped images put aside in a folder of their own, and brought back."""
