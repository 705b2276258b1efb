"""What detectors on a frozen encoder have in common, whatever they do with its features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from meds_plugin.encoders.weights import check_state_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from meds_plugin.encoders.base import FrozenEncoder

__all__ = ["ENCODER_PREFIX", "EncoderDetector"]

ENCODER_PREFIX = "encoder."


class EncoderDetector(nn.Module):
    """A detector on a frozen encoder, which never trains and supplies the memory features.

    Args:
        encoder: The frozen encoder.
    """

    def __init__(self, encoder: FrozenEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the images it takes, in pixels: the encoder's."""
        return self.encoder.image_size

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set whether the detector trains; the encoder stays frozen."""
        super().requires_grad_(requires_grad)
        self.encoder.requires_grad_(requires_grad=False)
        return self

    def features(self, images: Tensor) -> Tensor:
        """Return memory features ``[B, P, D]`` of the encoder (see `FrozenEncoder.features`)."""
        return self.encoder.features(images)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all parameters but the encoder's as one group."""
        named = self.named_parameters()
        return [{"params": [p for name, p in named if not name.startswith(ENCODER_PREFIX)]}]

    def _own_state(self) -> dict[str, Tensor]:
        """Return the state dict without the encoder's entries."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith(ENCODER_PREFIX)}

    def _load_reference(self, own: Mapping[str, Tensor], encoder: Mapping[str, Tensor]) -> None:
        """Load a checkpoint of the authors' code.

        Args:
            own: Everything but the encoder, under our names.
            encoder: The encoder's weights; empty: it stays as it is.

        Raises:
            UserError: If names or shapes differ from this model's; nothing is changed then.
        """
        source = "the reference checkpoint"
        check_state_dict(own, self._own_state(), source=source)
        if encoder:
            self.encoder.load_weights(encoder, source=f"{source}'s encoder")
        self.load_state_dict(own, strict=False)
