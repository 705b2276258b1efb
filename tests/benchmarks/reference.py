"""What the reference does in each stage (docs/method.md): the baseline of benchmarks.

It encodes the images of every step and of every selection pass, in float32, scores patches by a
loop over sampled memories, updates tensors one by one and asks for the loss of every step. Left
out, in its favour: reading and decoding of images, worker processes, kernels launched one at a
time.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from timm.optim.adamw import AdamWLegacy
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.shared.layers import Dropout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backbones.dinomaly import Dinomaly

__all__ = ["ReferenceLoop", "memory_loop"]


class ReferenceLoop:
    """Dinomaly's training steps and selection pass.

    Args:
        detector: Dinomaly, whose layers the reference shares; its dropout is put back to torch's.
        batch: Images of a step and of a selection batch.
    """

    def __init__(self, detector: Dinomaly, *, batch: int) -> None:
        for part in [*detector.modules()]:
            for name, child in part.named_children():
                if isinstance(child, Dropout):
                    setattr(part, name, nn.Dropout(child.p))
        self.detector = detector
        self.batch = batch
        self.params = detector.parameter_groups()[0]["params"]
        self.optimizer = AdamWLegacy(
            self.params,
            lr=2e-3,
            weight_decay=1e-4,
            eps=1e-10,
            amsgrad=True,
            clipping_threshold=1.0,
            foreach=False,
        )

    def distill(self, images: Tensor, targets: Tensor) -> float:
        """Make a step of distillation.

        Args:
            images: ``[B, 3, H, W]``.
            targets: ``[B, h, w]`` memory scores.
        """
        self.detector.train()
        return self._update(10 * F.mse_loss(self._map(images), targets))

    def finetune(self, images: Tensor, *, share: float = 0.5) -> float:
        """Make a step of fine-tuning on ``[B, 3, H, W]`` images, with that share of easy points."""
        self.detector.train()
        loss = torch.zeros((), device=images.device)
        targets, reconstructions = self.detector.reconstruct(images)
        for target, output in zip(targets, reconstructions, strict=True):
            fixed = target.detach()
            with torch.no_grad():
                distance = 1 - F.cosine_similarity(fixed, output)
            hardest = distance.flatten().topk(max(1, int(distance.numel() * (1 - share))))
            cosine = F.cosine_similarity(fixed.flatten(1), output.flatten(1))
            loss = loss + (1 - cosine).mean() / len(targets)
            easy = (distance < hardest.values[-1]).unsqueeze(1)
            output.register_hook(partial(_damp, easy=easy))
        return self._update(loss)

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        """Return image scores ``[N]`` of ``[N, 3, H, W]``: a selection pass."""
        self.detector.eval()
        scores = []
        for part in images.split(self.batch):
            values = self._map(part).flatten(1)
            scores.append(values.topk(max(1, int(0.01 * values.shape[1]))).values.mean(1))
        return torch.cat(scores)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return memory features ``[N, P, D]`` of ``[N, 3, H, W]``."""
        return torch.cat([self.detector.features(part) for part in images.split(self.batch)])

    def _map(self, images: Tensor) -> Tensor:
        pairs = zip(*self.detector.reconstruct(images), strict=True)
        return torch.stack([1 - F.cosine_similarity(*pair) for pair in pairs]).mean(0)

    def _update(self, loss: Tensor) -> float:
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.params, 0.1, foreach=False)
        self.optimizer.step()
        return float(loss.item())


@torch.no_grad()
def memory_loop(features: Tensor, subsets: Sequence[Tensor], sample: Tensor) -> Tensor:
    """Score the patches of some images against sampled memories, one product after the other.

    Args:
        features: ``[N, P, D]``.
        subsets: The images of each memory.
        sample: ``[n]`` images to score, each of which takes the same time.

    Returns:
        ``[n, P]`` mean cosine distances.
    """
    unit = F.normalize(features, dim=-1)
    total = torch.zeros(len(sample), features.shape[1], device=features.device)
    for subset in subsets:
        memory = unit[subset.to(unit.device)].flatten(0, 1).t()
        for row, image in zip(total, unit[sample], strict=True):
            row += (1 - torch.round(image @ memory, decimals=5)).amin(1)
    return total / len(subsets)


def _damp(gradient: Tensor, *, easy: Tensor) -> Tensor:
    return torch.where(easy, 0.1 * gradient, gradient)
