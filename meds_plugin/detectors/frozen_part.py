"""The part of a detector that never trains: in evaluation mode, and left out of checkpoints."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn

__all__ = ["FrozenPart", "check_saved", "fingerprint", "freeze_modes", "frozen_prefixes", "without"]


class FrozenPart:
    """The part of a wrapped detector that never trains.

    Args:
        detector: The detector.
        trainable: The parameters that the optimiser gets.
        memory_encoder: Provides memory features instead of the detector.

    Attributes:
        prefixes: See `frozen_prefixes`.
    """

    def __init__(
        self,
        detector: nn.Module,
        trainable: Iterable[nn.Parameter],
        memory_encoder: nn.Module | None = None,
    ) -> None:
        self.prefixes = frozen_prefixes(detector, trainable)
        self._detector = detector
        self._memory_encoder = memory_encoder
        self._fingerprint = ""

    def settle(self) -> None:
        """Put the frozen part into evaluation mode."""
        freeze_modes(self._detector, self.prefixes)
        if self._memory_encoder is not None:
            self._memory_encoder.eval()

    def copy_trained(self) -> dict[str, Tensor]:
        """Return a copy, on the CPU, of the detector's state without frozen weights."""
        state = without(self._detector.state_dict(), self.prefixes)
        return {key: value.detach().cpu().clone() for key, value in state.items()}

    def trained(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the entries of a wrapper's state that belong into checkpoints."""
        return without(state, ["memory_encoder.", *(f"detector.{name}" for name in self.prefixes)])

    def fingerprint(self) -> str:
        """Return the fingerprint of the detector's frozen weights, hashed when first needed."""
        self._fingerprint = self._fingerprint or fingerprint(self._detector, self.prefixes)
        return self._fingerprint

    def output_fingerprint(self) -> str:
        """Return a fingerprint of all weights that encodings and memory features depend on."""
        encoder = self._memory_encoder
        return self.fingerprint() + ("" if encoder is None else fingerprint(encoder, [""]))

    def forget(self) -> None:
        """Hash the weights again when next needed: they may have changed."""
        self._fingerprint = ""


def frozen_prefixes(module: nn.Module, trainable: Iterable[nn.Parameter]) -> tuple[str, ...]:
    """Return the names, each followed by a dot, of the topmost submodules that never train.

    A submodule counts when it has parameters and the optimiser gets none of them.
    """
    learned = {id(parameter) for parameter in trainable}
    found: list[str] = []

    def visit(part: nn.Module, prefix: str) -> None:
        for name, child in part.named_children():
            parameters = list(child.parameters())
            if parameters and not any(id(p) in learned for p in parameters):
                found.append(f"{prefix}{name}.")
            else:
                visit(child, f"{prefix}{name}.")

    visit(module, "")
    return tuple(found)


def freeze_modes(module: nn.Module, frozen: Iterable[str]) -> None:
    """Put the submodules under the prefixes (see `frozen_prefixes`) into evaluation mode.

    This fixes their batch statistics, which the reference lets drift in a frozen backbone.
    """
    for prefix in frozen:
        module.get_submodule(prefix.rstrip(".")).eval()


def without(state: Mapping[str, Tensor], prefixes: Iterable[str]) -> dict[str, Tensor]:
    """Return the entries whose name starts with none of the prefixes."""
    left_out = tuple(prefixes)
    return {key: value for key, value in state.items() if not key.startswith(left_out)}


def fingerprint(module: nn.Module, prefixes: Iterable[str]) -> str:
    """Return a SHA-256 over names, types and values of the state under the prefixes."""
    wanted = tuple(prefixes)
    digest = hashlib.sha256()
    for key, value in module.state_dict().items():
        if wanted and key.startswith(wanted):
            array = value.detach().cpu().float().contiguous().numpy()
            digest.update(f"{key}{tuple(value.shape)}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def check_saved(
    saved: Mapping[str, Tensor],
    *,
    expected: Mapping[str, Tensor],
    saved_fingerprint: str | None,
    fingerprint: str,
) -> None:
    """Refuse a checkpoint of another model.

    Args:
        saved: The checkpoint's weights, without the frozen ones.
        expected: The model's own, likewise.
        saved_fingerprint: Of the frozen weights that the checkpoint was trained with.
        fingerprint: Of the model's own frozen weights.

    Raises:
        UserError: Naming what differs.
    """
    for kind, names in (
        ("lacks", expected.keys() - saved.keys()),
        ("has unknown", saved.keys() - expected.keys()),
    ):
        if names:
            shown = ", ".join(sorted(names)[:3])
            msg = (
                f"the checkpoint {kind} {len(names)} weights ({shown} ...): it is of another model"
            )
            raise UserError(msg)
    if saved_fingerprint != fingerprint:
        msg = (
            "the checkpoint was trained with other frozen weights than this detector's: give the "
            "ones it was trained with, an encoder's by encoder.weights=FILE"
        )
        raise UserError(msg)
