"""Checkpoints of HVQ's authors: from their names and layouts to ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["split_reference"]

_ENCODER = "enc."
_UNUSED = "input_proj."
_PLAIN = {
    "quantize_conv_t.": "embed.",
    "pos_embed.row_embed.weight": "positions.rows",
    "pos_embed.col_embed.weight": "positions.columns",
    "encoder.layers.": "layers.",
    "decoder.layers.": "decoder.",
    "decoder.norm.": "norm.",
}
_BUFFERS = ("embed", "cluster_size", "embed_avg")


def split_reference(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, classes: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Rename a checkpoint's weights and stack those that it stores class by class.

    Args:
        state: The authors' weights, where codes are columns.
        own: Our weights; those that the authors do not have (means for routing, counters) stay.
        classes: Number of classes of our model.

    Returns:
        Weights under our names, as far as names are known, and those of the encoder.
    """
    left = {name.removeprefix("module."): value for name, value in state.items()}
    encoder = {k.removeprefix(_ENCODER): v for k, v in left.items() if k.startswith(_ENCODER)}
    left = {k: v for k, v in left.items() if not k.startswith((_ENCODER, _UNUSED))}
    found: dict[str, Tensor] = {}
    for name in own:
        parts = _parts(name, classes)
        if parts and all(part in left for part in parts):
            values = [left.pop(part) for part in parts]
            transposed = name.endswith((".embed", ".embed_avg"))
            found[name] = torch.stack([each.mT if transposed else each for each in values])
        elif name.endswith(".draws") or name.startswith("router."):
            found[name] = own[name]
        elif name.endswith(".started"):
            found[name] = torch.ones_like(own[name])
    for name, value in left.items():
        key = name.replace(".multihead_attn.", ".cross_attn.")
        for old, new in _PLAIN.items():
            if key.startswith(old):
                key = new + key.removeprefix(old)
                break
        found[key] = value.flatten(1) if key == "embed.weight" else value
    return found, encoder


def _parts(name: str, classes: int) -> list[str]:
    """Return the authors' names, one a class, of what we store in one tensor; none for others."""
    places = range(classes)
    if name in ("output_weight", "output_bias"):
        kind = name.removeprefix("output_")
        return [f"output_proj_list.{place}.{kind}" for place in places]
    first, _, rest = name.partition(".")
    level, _, buffer = rest.partition(".")
    if first != "codebooks" or buffer not in _BUFFERS:
        return []
    return [f"quantize_list_{int(level) + 1}.{place}.{buffer}" for place in places]
