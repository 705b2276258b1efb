"""HVQ: a detector that reconstructs features from a hierarchy of codebooks."""

from backbones.hvq.detector import HVQ

__all__ = ["HVQ"]
