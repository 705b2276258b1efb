"""Small detectors and data sets that several tests share."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from meds_plugin.training.optimizer import OptimizerSettings
from meds_plugin.wrapper import MeDSWrapper

SIZE = 16


class ToyImages(Dataset[Tensor]):
    """Smooth images of two groups; every fifth has a bright square."""

    def __init__(self, count: int = 20) -> None:
        generator = torch.Generator().manual_seed(3)
        self.images = 0.1 * torch.randn(count, 3, SIZE, SIZE, generator=generator)
        self.anomalous = [i for i in range(count) if i % 5 == 4]
        for i in self.anomalous:
            self.images[i, :, 4:8, 4:8] += 3.0
        self.groups = ["left" if i % 2 else "right" for i in range(count)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


class BareDetector(nn.Module):
    """The least a detector can be: a call that maps images to a map."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(3, 4, 4, stride=4)
        self.drop = nn.Dropout(0.2)
        self.expand = nn.ConvTranspose2d(4, 3, 4, stride=4)

    def forward(self, images: Tensor) -> Tensor:
        rebuilt = self.expand(self.drop(torch.tanh(self.squeeze(images))))
        return nn.functional.avg_pool2d((rebuilt - images).square().mean(1, keepdim=True), 4)


class FullDetector(nn.Module):
    """A detector with every optional method and a frozen part."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 8, 4, stride=4).requires_grad_(requires_grad=False)
        self.head = nn.Conv2d(8, 8, 1)
        self.drop = nn.Dropout(0.2)
        self.encoded = 0
        self.losses: list[tuple[int, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        return self.anomaly_map(self.encode(images))

    def encode(self, images: Tensor) -> Tensor:
        self.encoded += len(images)
        return torch.tanh(self.encoder(images))

    def features(self, images: Tensor) -> Tensor:
        return torch.tanh(self.encoder(images)).flatten(2).transpose(1, 2)

    def anomaly_map(self, encoded: Tensor) -> Tensor:
        return 1 - nn.functional.cosine_similarity(self.head(self.drop(encoded)), encoded)

    def loss(self, encoded: Tensor, *, step: int, total_steps: int) -> Tensor:
        self.losses.append((step, total_steps))
        return self.anomaly_map(encoded).square().mean()

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.head.parameters())}]


def loader(count: int = 20, batch_size: int = 4, workers: int = 0) -> DataLoader[Tensor]:
    """Return a loader of `ToyImages`."""
    return DataLoader(ToyImages(count), batch_size=batch_size, num_workers=workers, shuffle=True)


def wrap(detector: nn.Module, **settings: Any) -> MeDSWrapper:
    """Wrap a detector with a short training."""
    settings = {
        "distill_steps": 12,
        "finetune_steps": 16,
        "optimizer": OptimizerSettings(lr=1e-2, final_lr=1e-3, warmup=2),
        **settings,
    }
    return MeDSWrapper(detector, **settings)


def quiet_trainer(max_steps: int, **settings: Any) -> L.Trainer:
    """Return a trainer on the CPU that prints and writes nothing."""
    return L.Trainer(
        **{
            "max_steps": max_steps,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **settings,
        }
    )


def port_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename timm's weights of an EfficientNet as the port of the HVQ reference does."""
    blocks = sorted({tuple(map(int, k.split(".")[1:3])) for k in state if k.startswith("blocks.")})
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    later = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    later |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    outside |= {"classifier": "_fc"}
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] != "blocks":
            renamed[".".join([outside[parts[0]], *parts[1:]])] = value
            continue
        place = (int(parts[1]), int(parts[2]))
        if parts[3] == "se":
            layer = {"conv_reduce": "_se_reduce", "conv_expand": "_se_expand"}[parts[4]]
        else:
            layer = (first if place[0] == 0 else later)[parts[3]]
        renamed[f"_blocks.{blocks.index(place)}.{layer}.{parts[-1]}"] = value
    return renamed
