"""Frozen encoders: features of images, by timm's name."""
