"""Names of an EfficientNet's weights in the PyTorch port that the HVQ reference uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["is_port", "port_to_timm"]

_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
    **_SQUEEZE,
}
_SEPARABLE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
    **_SQUEEZE,
}


def is_port(names: Iterable[str]) -> bool:
    """Whether weights are named as in the port."""
    return "_conv_stem.weight" in names


def port_to_timm(name: str, expected: Iterable[str]) -> str:
    """Translate the port's name of a weight into timm's; unknown names are returned unchanged.

    Args:
        name: The port's name; the port numbers blocks consecutively, timm within each stage.
        expected: The names of timm's model.
    """
    head, _, rest = name.partition(".")
    if head in _OUTSIDE:
        return f"{_OUTSIDE[head]}.{rest}"
    index, _, rest = rest.partition(".")
    layer, _, rest = rest.partition(".")
    places = {tuple(map(int, key.split(".")[1:3])) for key in expected if key.startswith("blocks.")}
    if head != "_blocks" or not index.isdigit() or int(index) >= len(places):
        return name
    block = "blocks.{}.{}".format(*sorted(places)[int(index)])
    kind = _EXPANDING if f"{block}.conv_pwl.weight" in expected else _SEPARABLE
    return f"{block}.{kind[layer]}.{rest}" if layer in kind else name
