"""A transformer reconstructs a frozen encoder's features from a noisy, narrow copy of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from meds_plugin.encoders.build import build_encoder


class FeatureTransformer(nn.Module):
    """Its map is the cosine distance between features and their reconstruction.

    The encoder is frozen, so `encode` need run only once per image: the plugin caches its output.
    """

    def __init__(self, width: int = 64, depth: int = 2, drop: float = 0.3) -> None:
        super().__init__()
        self.encoder = build_encoder(
            model="tf_efficientnet_lite0", image_size=128, layers=[1, 2, 3], pyramid={"stride": 8}
        )
        patches, dim = self.encoder.grid[0] * self.encoder.grid[1], sum(self.encoder.channels)
        self.drop = nn.Dropout(drop)
        self.enter = nn.Linear(dim, width)
        self.place = nn.Parameter(0.02 * torch.randn(1, patches, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.leave = nn.Linear(width, dim)

    def encode(self, images: Tensor) -> Tensor:
        return torch.cat(self.encoder.tokens(images), dim=2)  # [B, P, D]

    def features(self, images: Tensor) -> Tensor:
        return self.encoder.features(images)

    def reconstruct(self, encoded: Tensor) -> Tensor:
        tokens = self.enter(self.drop(encoded)) + self.place
        reconstruction: Tensor = self.leave(self.blocks(tokens))
        return reconstruction

    def anomaly_map(self, encoded: Tensor) -> Tensor:
        similar = nn.functional.cosine_similarity(self.reconstruct(encoded), encoded, dim=2)
        return (1 - similar).view(-1, *self.encoder.grid)

    def loss(self, encoded: Tensor, *, step: int, total_steps: int) -> Tensor:
        return self.anomaly_map(encoded).mean()

    def forward(self, images: Tensor) -> Tensor:
        return self.anomaly_map(self.encode(images))
