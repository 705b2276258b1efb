"""The simplest of detectors: an autoencoder that squeezes an image through a few channels."""

from __future__ import annotations

from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Its map is the squared reconstruction error, averaged first to remove noise."""

    def __init__(self, width: int = 16, bottleneck: int = 8) -> None:
        super().__init__()
        wide = 4 * width
        self.squeeze = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * width, wide, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(wide, wide, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(wide, bottleneck, 1),
        )
        self.expand = nn.Sequential(
            nn.Conv2d(bottleneck, wide, 3, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(wide, wide, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(wide, 2 * width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        difference = self.expand(self.squeeze(images)) - images
        return nn.functional.avg_pool2d(difference, 4).square().mean(1)
