"""Groups images by name: category, view or both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from torch import Tensor

__all__ = ["group_indices"]


def group_indices(groups: Sequence[Hashable]) -> dict[str, Tensor]:
    """Return the ascending indices of each group's members; groups are sorted by name."""
    members: dict[str, list[int]] = {}
    for index, name in enumerate(groups):
        members.setdefault(str(name), []).append(index)
    return {name: torch.tensor(members[name]) for name in sorted(members)}
