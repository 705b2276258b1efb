"""The three stages as Lightning callbacks."""

from __future__ import annotations

from meds_plugin.callbacks.distillation import DistillationCallback
from meds_plugin.callbacks.memory_ensemble import MemoryEnsembleCallback
from meds_plugin.callbacks.progressive_selection import ProgressiveSelectionCallback

__all__ = ["DistillationCallback", "MemoryEnsembleCallback", "ProgressiveSelectionCallback"]
