"""The page on which people look at a run's training images, and what becomes of their decisions."""
