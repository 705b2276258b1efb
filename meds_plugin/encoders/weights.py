"""Weights of encoders: read safely, renamed to timm's names, fitted to an input size."""

from __future__ import annotations

import math
import pickle
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from meds_plugin.encoders.efficientnet_names import is_port, port_to_timm
from meds_plugin.utils.errors import UserError, brief
from meds_plugin.utils.text import first_few

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["check_state_dict", "read_weights", "resize_pos_embed", "to_timm_names"]

_UNUSED = ("mask_token", "head.", "rope.", "fc.", "classifier.", "_fc.")  # classifiers, mostly
_COUNTER = ".num_batches_tracked"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
_WRAPPERS = ("teacher", "student", "model", "state_dict", "model_state_dict", "module", "backbone")
_PREFIXES = ("module.", "backbone.")


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
    shown = [f"{len(keys)} {kind} ({first_few(keys)})" for kind, keys in faults.items() if keys]
    if shown:
        msg = f"{source} does not fit the model: {'; '.join(shown)}; give the weights of this model"
        raise UserError(msg)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of named tensors without running code from it.

    Args:
        path: ``.safetensors``, or what `torch.save` wrote: ``.pth``, ``.pt``, ``.bin``, ``.ckpt``,
            ``.pth.tar``. A state dict is found under the names that trainers put it under
            (``model``, ``state_dict``, ``teacher`` before ``student``, ...), and the prefixes
            ``module.`` and ``backbone.`` are removed; what lies beside a backbone is left out.

    Raises:
        UserError: If the file is missing, damaged, of another kind, or contains no named tensors.
    """
    source = f"encoder.weights={path}"
    kind = path.suffix.lower()
    if not path.is_file():
        msg = f"{source}: there is no such file"
        raise UserError(msg)
    if kind not in _SUFFIXES:
        msg = f"{source}: give a file that ends in {', '.join(_SUFFIXES)}"
        raise UserError(msg)
    content: Any
    try:
        if kind == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        code = isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower()
        fault = (
            "holds code, not only tensors: load it where you trust it and save its state_dict()"
            if code
            else f"cannot be read as weights ({brief(error)}); download the file again"
        )
        msg = f"{source}: {fault}"
        raise UserError(msg) from error
    state = _state_dict(content)
    if not state:
        names = [str(name) for name in content][:5] if isinstance(content, dict) else []
        found = f", only {', '.join(names)}" if names else ""
        msg = f"{source} holds no named tensors{found}; save the network's state_dict()"
        raise UserError(msg)
    for name, value in state.items():
        if not name.endswith("bias_mask") and not bool(torch.isfinite(value).all()):
            msg = f"{source}: {name} holds values that are not finite; download it again"
            raise UserError(msg)
    return state


def _state_dict(content: Any) -> dict[str, Tensor]:
    """Return the named tensors of a file's content, without a trainer's wrappings."""
    wrapper = next((key for key in _WRAPPERS if isinstance(content, dict) and key in content), None)
    if wrapper is not None and isinstance(content[wrapper], dict):
        return _state_dict(content[wrapper])
    if not isinstance(content, dict):
        return {}
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for prefix in _PREFIXES:
        while own := {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}:
            state = own
    return state


def to_timm_names(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights to timm's names and drop those that an encoder does not use.

    Args:
        state: Weights in the naming of timm, the official DINOv2 or DINOv3, or the EfficientNet of
            the HVQ reference.
        expected: The weights of timm's model.
    """
    if "storage_tokens" in state:
        state = _from_dinov3(state, expected)
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


def _from_dinov3(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the official DINOv3's weights; timm computes its rotary periods itself.

    Biases of queries, keys and values are split as timm has them, or left out where its model has
    none and they are zero, as in the distilled models.
    """
    names = {"storage_tokens": "reg_token", "ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2"}
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        key = name
        for old, new in names.items():
            key = key.replace(old, new)
        block = key.removesuffix("qkv.bias")
        if block == key:
            unused = key.startswith(("rope_embed.", "local_cls_norm.")) or "bias_mask" in key
            renamed |= {} if unused or key == "mask_token" else {key: tensor}
            continue
        query, keys, value = tensor.chunk(3)
        if bool(keys.any()) or (f"{block}q_bias" not in expected and bool(tensor.any())):
            renamed[key] = tensor  # timm's model has no place for it, which is told
        elif f"{block}q_bias" in expected:
            renamed |= {f"{block}q_bias": query, f"{block}v_bias": value}
    return renamed
