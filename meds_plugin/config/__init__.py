"""Configurations: where they lie, what they build, and command lines over them."""
