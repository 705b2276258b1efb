"""The least there is: an autoencoder that squeezes an image through a few channels."""

from __future__ import annotations

from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Its map is the error of the rebuilt image."""

    def __init__(self, width: int = 32, bottleneck: int = 16) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(4 * width, bottleneck, 1),
        )
        self.up = nn.Sequential(
            nn.Conv2d(bottleneck, 4 * width, 1),
            nn.GELU(),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        rebuilt = self.up(self.down(images))
        error = (rebuilt - images).square().mean(1, keepdim=True)
        return nn.functional.avg_pool2d(error, 4)
