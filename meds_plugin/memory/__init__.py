"""Memory scores: how far patches are from random memories of training images (stage 1)."""

from meds_plugin.memory.bootstrap import bootstrap_scores
from meds_plugin.memory.scores import ScoreOptions, expected_scores, gap_curve
from meds_plugin.memory.subsampling import sample_subsets

__all__ = ["ScoreOptions", "bootstrap_scores", "expected_scores", "gap_curve", "sample_subsets"]
