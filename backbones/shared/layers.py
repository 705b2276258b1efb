"""Layers shared by the decoders of reconstruction detectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Dropout", "Mlp", "PreNormBlock", "init_weights"]

NORM_EPS = 1e-8  # of the decoders; ViT encoders have 1e-6
_LEVELS = 1 << 16


class Dropout(nn.Dropout):
    """Dropout that samples its mask as 16-bit integers on a CPU, where torch's takes twice as long.

    There, the rate is rounded to a multiple of 2^-16. Masks come from torch's global generator.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Zero values at random and scale up the others so that the mean stays the same."""
        dropped = round(self.p * _LEVELS)
        plain = input.device.type != "cpu" or torch.compiler.is_compiling()
        if not self.training or dropped == 0 or plain or dropped == _LEVELS:
            return F.dropout(input, self.p, training=self.training)
        count = input.numel()
        bits = torch.empty(-(-count // 4), dtype=torch.int64, device=input.device)
        bits.random_(-(2**63), None)
        levels = bits.view(torch.int16)[:count].view(input.shape)
        factors = torch.empty_like(input)
        torch.ge(levels, dropped - _LEVELS // 2, out=factors)  # as 0 and 1
        return input * factors.mul_(_LEVELS / (_LEVELS - dropped))


class Mlp(nn.Module):
    """Two linear layers, D to 4 D and back, with a GELU between them.

    Args:
        dim: Width D of input and output.
        dropout: Rate before, between and after the layers.
    """

    def __init__(self, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)
        self.drop = Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``[B, T, D]`` to ``[B, T, D]``."""
        hidden = self.drop(F.gelu(self.fc1(self.drop(tokens))))
        out: Tensor = self.drop(self.fc2(hidden))
        return out


class PreNormBlock(nn.Module):
    """The parts of a transformer block that normalises before its attention and before its MLP.

    Args:
        dim: Width D.
        attention: The attention.
    """

    def __init__(self, dim: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim)


def init_weights(module: nn.Module) -> None:
    """Initialise all linear layers from torch's global generator, and norms to 1 and 0.

    Source:
        The reference: normal with standard deviation 0.01, truncated at 0.03; biases 0.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.03, b=0.03)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm):
            layer.reset_parameters()
