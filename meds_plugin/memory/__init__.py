"""Memory scores: how far a patch is from random memories of training images (stage 1)."""

from meds_plugin.memory.scores import (
    Unit,
    bootstrap_scores,
    by_group,
    expected_scores,
    gap_curve,
)
from meds_plugin.memory.subsampling import draw_subsets, memory_size

__all__ = [
    "Unit",
    "bootstrap_scores",
    "by_group",
    "draw_subsets",
    "expected_scores",
    "gap_curve",
    "memory_size",
]
