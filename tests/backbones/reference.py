"""The reference's outputs for a detector on a tiny encoder, and how ours is compared with them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from meds_plugin.encoders.build import build_encoder
from meds_plugin.training.optimizer import OptimizerSettings, StableAdamW

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from backbones.shared.reconstruction import ReconstructionDetector

__all__ = ["Reference", "tensors_of"]


def tensors_of(arrays: dict[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Return the state dict among the arrays, under the authors' names."""
    return {k.removeprefix("sd."): torch.from_numpy(v) for k, v in arrays.items() if k[:3] == "sd."}


class Reference:
    """The reference's weights and outputs, as tensors.

    Args:
        arrays: The outputs.
        weights: The state dict.
        width: Of the encoder.
        kind: The detector.
    """

    def __init__(
        self,
        arrays: dict[str, NDArray[Any]],
        weights: dict[str, Tensor],
        *,
        width: int,
        kind: Callable[..., ReconstructionDetector],
    ) -> None:
        self.arrays, self.weights = arrays, weights
        self.width, self.kind = width, kind
        self.names = [str(name) for name in arrays["grad.names"]]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def __getitem__(self, key: str) -> Tensor:
        return torch.as_tensor(self.arrays[key])

    def model(self, **arguments: Any) -> Any:
        """Return our detector with the reference's weights."""
        encoder = build_encoder(
            model="vit_base_patch14_reg4_dinov2",
            image_size=56,
            layers=range(2, 10),
            weights="random",
            model_args={"embed_dim": self.width, "depth": 12, "num_heads": 4},
        )
        model = self.kind(encoder, **arguments)
        model.load_reference_state_dict(self.weights)
        return model

    def check_maps(self, model: ReconstructionDetector) -> None:
        """Compare targets, reconstructions and the map in evaluation mode."""
        model.eval()
        images = self["input"]
        targets, reconstructed = model.reconstruct(images)
        for group in (0, 1):
            expected = self[f"en.{group}"], self[f"de.{group}"]
            torch.testing.assert_close(targets[group], expected[0], rtol=0.0, atol=1e-4)
            torch.testing.assert_close(reconstructed[group], expected[1], rtol=0.0, atol=1e-4)
        expected_map = self["amap.patch"].squeeze(1)
        torch.testing.assert_close(model(images), expected_map, rtol=0.0, atol=1e-5)

    def check_gradients(self, model: nn.Module, key: str) -> None:
        """Compare the norm of every gradient, and the whole gradient where it is there."""
        own = dict(model.named_parameters())
        assert self.names == [name for name in own if not name.startswith("encoder.")]
        for name, norm in zip(self.names, self[f"{key}.gradnorm"].tolist(), strict=True):
            gradient = own[name].grad
            if gradient is None:
                assert norm == 0.0 or math.isnan(norm), name
                continue
            assert float(gradient.double().norm()) == pytest.approx(norm, rel=2e-3), name
            if f"{key}.grad.{name}" in self:
                expected = self[f"{key}.grad.{name}"]
                assert (gradient - expected).norm() <= 2e-3 * expected.norm(), name

    def check_distillation(self, model: ReconstructionDetector, kind: str) -> None:
        """Compare the distillation loss and its gradients, where they are there."""
        loss = self.distillation_loss(model, model.encode(self["input"]), kind)
        torch.autograd.backward(loss)
        assert loss.item() == pytest.approx(float(self[f"distill.{kind}.loss"]), abs=1e-5)
        self.check_gradients(model, f"distill.{kind}")

    def distillation_loss(
        self, model: ReconstructionDetector, encoded: Tensor, kind: str = "l2"
    ) -> Tensor:
        """Return the loss of fitting the map to the stored scores."""
        compare = F.mse_loss if kind == "l2" else F.l1_loss
        return 10.0 * compare(model.anomaly_map(encoded).flatten(1), self["distill.target"])

    def check_six_steps(
        self,
        model: Any,
        encoded: Tensor,
        stage: str,
        settings: OptimizerSettings,
        *,
        drift: float = 1.0,
    ) -> None:
        """Train as the reference did and compare every loss and norm, and the weights at the end.

        Args:
            model: The detector; its own loss trains it in the stage ``finetune``.
            encoded: The input, encoded.
            stage: ``finetune`` or ``distill``.
            settings: With the warm-up of three steps.
            drift: What tolerances are multiplied by after the first three steps.
        """
        trace = f"trace.{stage}"
        optimizer = StableAdamW(model.parameter_groups(), settings)
        trainable = model.parameter_groups()[0]["params"]
        for step in range(6):
            rate = settings.lr_at(step, total=8)
            if f"{trace}.lr" in self:
                assert rate == pytest.approx(float(self[f"{trace}.lr"][step]), abs=1e-12)
            optimizer.param_groups[0]["lr"] = rate
            if stage == "finetune":
                loss = model.loss(encoded, step=step, total_steps=6)
            else:
                loss = self.distillation_loss(model, encoded)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            norm = nn.utils.clip_grad_norm_(trainable, settings.gradient_clip)
            optimizer.step()
            loose = drift if step > 2 else 1.0
            assert loss.item() == pytest.approx(
                float(self[f"{trace}.loss"][step]), rel=1e-4 * loose
            )
            expected_norm = float(self[f"{trace}.gradnorm_preclip"][step])
            assert float(norm) == pytest.approx(expected_norm, rel=2e-3 * loose)
        finals = [key for key in self.arrays if key.startswith(f"{trace}.final.")]
        assert finals
        for key in finals:
            final = model.get_parameter(key.removeprefix(f"{trace}.final.")).detach()
            torch.testing.assert_close(final, self[key], rtol=0.0, atol=1e-5 * drift)
