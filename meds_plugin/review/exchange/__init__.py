"""The ranked training images in the formats of other tools, and decisions made there."""
