"""Checkpoints without frozen weights, and the check that they fit the detector they meet."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from meds_plugin.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn

__all__ = ["check_saved", "fingerprint", "frozen_prefixes", "without"]


def frozen_prefixes(module: nn.Module, trainable: Iterable[nn.Parameter]) -> tuple[str, ...]:
    """Return the names, each with a dot at its end, of the topmost submodules that never train.

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
        saved_fingerprint: Of the frozen weights that the checkpoint was trained on.
        fingerprint: Of the frozen weights that are there now.

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
            "the checkpoint was trained on an encoder with other weights than the one given: "
            "give encoder.weights=FILE with those it was trained on"
        )
        raise UserError(msg)
