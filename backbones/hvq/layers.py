"""Transformer layers with the norm after each branch, and positions in queries and keys only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LearnedPositions", "PostNormLayer"]


class PostNormLayer(nn.Module):
    """x = norm(x + branch(x)) for self-attention, attention to a memory (if any), and an MLP.

    Args:
        dim: Width D.
        heads: Attention heads, a divisor of D.
        hidden: Width between the two linear layers.
        dropout: Rate between the linear layers and after each branch.
        attention_dropout: Rate on attention weights.
        cross: Whether the layer attends to a memory.

    Source:
        docs/method.md, section 6, HVQ.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        hidden: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        cross: bool = False,
    ) -> None:
        super().__init__()

        def attention() -> nn.MultiheadAttention:
            return nn.MultiheadAttention(dim, heads, dropout=attention_dropout, batch_first=True)

        self.self_attn = attention()
        self.cross_attn = attention() if cross else None
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim) if cross else None
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor, memory: Tensor | None = None) -> Tensor:
        """Map ``[B, T, D]`` to ``[B, T, D]``.

        Args:
            tokens: ``[B, T, D]``.
            positions: ``[T, D]``.
            memory: ``[B, T, D]``, for a layer that attends to one.
        """
        place = tokens + positions
        mixed = self.self_attn(place, place, tokens, need_weights=False)[0]
        tokens = self.norm1(tokens + self.drop(mixed))
        last = self.norm2
        if self.cross_attn is not None and self.norm3 is not None and memory is not None:
            mixed = self.cross_attn(
                tokens + positions, memory + positions, memory, need_weights=False
            )[0]
            tokens, last = self.norm2(tokens + self.drop(mixed)), self.norm3
        hidden = self.linear2(self.drop(F.relu(self.linear1(tokens))))
        out: Tensor = last(tokens + self.drop(hidden))
        return out


class LearnedPositions(nn.Module):
    """Learned vectors for rows and columns of a grid, initially uniform in [0, 1).

    Args:
        grid: (h, w).
        dim: Width D, even.
    """

    def __init__(self, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.rand(grid[0], dim // 2))
        self.columns = nn.Parameter(torch.rand(grid[1], dim // 2))

    def forward(self) -> Tensor:
        """Return ``[h * w, D]``, row by row: the column's vector, then the row's."""
        height, width = len(self.rows), len(self.columns)
        return torch.cat(
            [
                self.columns.unsqueeze(0).expand(height, -1, -1),
                self.rows.unsqueeze(1).expand(-1, width, -1),
            ],
            dim=-1,
        ).flatten(0, 1)
