"""Weights of encoders: read safely, renamed to timm's names, fitted to an input size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from meds_plugin.encoders.efficientnet_names import is_port, port_to_timm
from meds_plugin.utils.errors import UserError, brief

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["check_state_dict", "read_weights", "resize_pos_embed", "to_timm_names"]

_UNUSED = ("mask_token", "head.", "rope.", "fc.", "classifier.", "_fc.")  # classifiers, mostly
_COUNTER = ".num_batches_tracked"


def resize_pos_embed(pos_embed: Tensor, grid: tuple[int, int], *, prefix_tokens: int) -> Tensor:
    """Resize a learned position embedding to another patch grid.

    Args:
        pos_embed: ``[1, prefix + N * N, D]``.
        grid: (h, w), patches down and across.
        prefix_tokens: Number of rows at the start that belong to no patch; they stay unchanged.

    Returns:
        ``[1, prefix + h * w, D]``; the input itself if the grid is the same.

    Raises:
        UserError: If the patches do not form a square, and their number differs from the grid's.

    Source:
        DINOv2: bicubic, no antialiasing, and 0.1 added to the new side. The scale with that offset
        also places the samples, so passing the new size instead of the scale would differ.
    """
    prefix, patches = pos_embed[:, :prefix_tokens], pos_embed[:, prefix_tokens:]
    count, dim = patches.shape[1:]
    side = math.isqrt(count)
    if grid == (side, side) or (side * side != count and count == math.prod(grid)):
        return pos_embed
    if side * side != count or count == 0:
        msg = (
            f"the encoder's weights have positions for {count} patches, which do not form a square "
            f"or fit {grid[0]} x {grid[1]}: give weights trained on square images"
        )
        raise UserError(msg)
    image = patches.float().reshape(1, side, side, dim).permute(0, 3, 1, 2)
    scale = [(target + 0.1) / side for target in grid]
    image = F.interpolate(image, scale_factor=scale, mode="bicubic", antialias=False)
    resized = image.permute(0, 2, 3, 1).reshape(1, -1, dim).to(pos_embed.dtype)
    return torch.cat([prefix, resized], dim=1)


def check_state_dict(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: str
) -> None:
    """Refuse weights whose names or shapes differ from a model's.

    Raises:
        UserError: Naming the source and a few of the names.
    """
    wrong = [k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape]
    faults = {
        "missing": sorted(expected.keys() - state.keys()),
        "unexpected": sorted(state.keys() - expected.keys()),
        "of another shape": sorted(wrong),
    }
    shown = [
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in faults.items()
        if keys
    ]
    if shown:
        msg = f"{source} does not fit the model: {'; '.join(shown)}; take the weights of this model"
        raise UserError(msg)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of named tensors without running code from it.

    Args:
        path: ``.safetensors``, ``.pth`` or ``.pt``; a dictionary under ``model`` or ``state_dict``
            is unwrapped.

    Raises:
        UserError: If the file is missing, damaged, of another kind, or contains no named tensors.
    """
    state: Any = None
    if not path.is_file():
        fault = "there is no such file"
    elif path.suffix not in {".safetensors", ".pth", ".pt"}:
        fault = "give a .safetensors, .pth or .pt file"
    else:
        try:
            fault = "holds no named tensors; give a state dict"
            if path.suffix == ".safetensors":
                state = load_file(path)
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            fault = f"cannot be read as weights ({brief(error)}); get the file again"
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        msg = f"encoder.weights={path}: {fault}"
        raise UserError(msg)
    for name, value in state.items():
        if not bool(torch.isfinite(value).all()):
            msg = f"encoder.weights={path}: {name} holds values that are not finite; get it again"
            raise UserError(msg)
    return state


def to_timm_names(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights to timm's names and drop those that an encoder does not use.

    Args:
        state: Weights in the naming of timm, the official DINOv2, or the EfficientNet of the HVQ
            reference.
        expected: The weights of timm's model.
    """
    official = "register_tokens" in state or "mask_token" in state
    port = is_port(state)
    names = {"register_tokens": "reg_token", "mlp.w12.": "mlp.fc1.", "mlp.w3.": "mlp.fc2."}
    renamed = {}
    for name, tensor in state.items():
        key = port_to_timm(name, expected) if port else name
        for old, new in names.items() if official else ():
            key = key.replace(old, new)
        if key in expected or not key.startswith(_UNUSED):
            renamed[key] = tensor
    # In timm's models with registers, the class token includes its position embedding.
    if "register_tokens" in state and {"cls_token", "pos_embed"} <= renamed.keys():
        position = renamed["pos_embed"]
        renamed["cls_token"] = renamed["cls_token"] + position[:, :1]
        renamed["pos_embed"] = position[:, 1:]
    # Old files lack the counters of batch norm, which evaluation does not use.
    counters = {key: value for key, value in expected.items() if key.endswith(_COUNTER)}
    return {**counters, **renamed}
