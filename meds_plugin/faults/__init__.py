"""Faults of images that can be read: blur, light, odd formats, near-duplicates, wrong products."""
