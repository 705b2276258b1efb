"""Detectors: the protocol, defaults for what they lack, validation, and their frozen part."""
