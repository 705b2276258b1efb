"""Turns a trained detector into a file for ONNX or `torch.export`, and says how to feed it."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import platform
import warnings
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from meds_plugin.detectors.example_images import random_images
from meds_plugin.utils.errors import UserError, brief

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meds_plugin.evaluation.scoring import Scorer
    from meds_plugin.prediction.predictor import AlarmSettings, Predictor

__all__ = ["FORMATS", "Format", "describe", "export_bytes"]

Format = Literal["onnx", "torch"]
FORMATS: dict[str, str] = {"onnx": ".onnx", "torch": ".pt2"}

OUTPUTS = ("anomaly_map", "score")
TOLERANCE = 1e-3  # of the largest value; other programs add up in another order


class _Exportable(nn.Module):
    """A scorer in float32, for images of one category or of unknown ones, with named outputs."""

    def __init__(self, scorer: Scorer, place: int) -> None:
        super().__init__()
        self.scorer = copy.copy(scorer)
        self.scorer.precision = "32-true"  # runtimes differ in what they can halve
        self.place = place

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        # The length of a tensor would be a fixed number in what is exported, a shape is not.
        category = torch.full((images.shape[0],), self.place, device=images.device)
        return dict(zip(OUTPUTS, self.scorer(images, category), strict=True))


def export_bytes(
    predictor: Predictor, kind: Format, *, category: str | None = None, opset: int = 18
) -> bytes:
    """Return a file that takes ``images`` and gives ``anomaly_map`` and ``score``.

    ``images`` is float32 ``[B, 3, H, W]``, prepared as `describe` says, B any number;
    ``anomaly_map`` is ``[B, R, R]``, what the evaluation looks at, or of tiles ``[B, h, w]``, and
    ``score`` ``[B]``; higher = more anomalous. The file is run before it is returned, and its
    numbers are compared.

    Args:
        predictor: The detector, on the CPU.
        kind: ``onnx``, or ``torch`` for `torch.export`.
        category: Of all images it will see.
        opset: Of ONNX.

    Raises:
        UserError: If a package is missing, the detector cannot be exported, its file would be too
            large for ONNX, a category is needed or unknown, or numbers differ.
    """
    own = predictor.check_category(category)
    place = -1 if own is None else predictor.categories.index(own)
    module = _Exportable(predictor.scorer, place).eval()
    example = random_images(*predictor.transform.input_size, torch.device("cpu"))
    try:
        for name in ("onnx", "onnxscript", "onnxruntime") if kind == "onnx" else ():
            import_module(name)
    except ImportError as error:
        msg = f"format=onnx needs the package {name}: pip install 'meds-plugin[onnx]'"
        raise UserError(msg) from error
    try:
        with _quiet():
            content = _onnx(module, example, opset) if kind == "onnx" else _torch(module, example)
    except UserError:
        raise
    except Exception as error:  # exporters fail in any way on code they do not know
        msg = f"backbone={predictor.backbone} cannot be exported to {kind}: {brief(error)}"
        raise UserError(msg) from error
    _check(module, example, kind, content)
    return content


def describe(
    predictor: Predictor, kind: Format, *, alarm: AlarmSettings, category: str | None, opset: int
) -> dict[str, Any]:
    """Return all that one has to know to use the file, as plain data."""
    preprocess, protocol = predictor.transform, predictor.scorer.protocol
    normalization = preprocess.normalization
    height, width = preprocess.input_size
    packages = ("torch", "onnx", "onnxscript") if kind == "onnx" else ("torch",)
    own = predictor.check_category(category)
    names = [own] if own is not None else list(predictor.categories)
    limits = None
    if stored := predictor.thresholds:
        each = {name: asdict(predictor.threshold(name, alarm)) for name in names}
        limits = {"global": asdict(predictor.threshold(None, alarm)), "categories": each}
    return {
        "format": kind,
        "opset": opset if kind == "onnx" else None,
        "backbone": predictor.backbone,
        "input": {"name": "images", "type": "float32", "shape": ["batch", 3, height, width]},
        "outputs": {
            "anomaly_map": {"shape": ["batch", *_map_size(predictor)]},
            "score": {"shape": ["batch"]},
        },
        "preprocessing": {
            "colours": "RGB, 8 bits",
            # Of black and white in files of more than 8 bits.
            "range": list(preprocess.value_range) if preprocess.value_range else "full",
            "resize": list(preprocess.image_size),
            "interpolation": f"{normalization.interpolation} with antialiasing (Pillow), the whole "
            "image regardless of aspect ratio, rounded to 8 bits",
            "crop": {"size": [height, width], "offset": list(preprocess.offset)},
            "divide_by": 255,
            "mean": list(normalization.mean),
            "std": list(normalization.std),
        },
        "tiles": _tiles(predictor),
        "postprocessing": {
            "included": "none: the maps are of tiles; see tiles"
            if predictor.tiling
            else "resizing and smoothing of the map, and the image score",
            **asdict(protocol),
        },
        "categories": names,
        "rule": "an image, or a pixel of the map, is defective where its value is above the "
        "threshold of its category, or without one above the global threshold",
        "thresholds": limits,
        "false_alarm_rate": alarm.rate or (stored.rate if stored else None),
        "scale": list(stored.scale) if stored else None,
        "versions": {
            "python": platform.python_version(),
            "meds_plugin": _version("meds-plugin"),
            **{name: _version(name) for name in packages},
        },
    }


def _tiles(predictor: Predictor) -> dict[str, Any] | None:
    """Say how large images become tiles, and the tiles' maps a map of the image."""
    if predictor.tiling is None:
        return None
    return {
        "size": list(predictor.tiling.size),
        "overlap": list(predictor.tiling.overlap),
        "use": "meds_plugin.tiles: TileLayout(Tiling.of(size, overlap), [(height, width)]).starts "
        "gives the tiles' corners, each is then preprocessed as an image; .stitch(maps, 0, "
        "postprocessing.resize) puts their maps together, and meds_plugin.evaluation.tiled."
        "finish_map smooths the result and gives the image score",
    }


def _map_size(predictor: Predictor) -> list[int]:
    if predictor.tiling is None:
        return [predictor.scorer.protocol.resize] * 2
    example = random_images(*predictor.transform.input_size, torch.device("cpu"))[:1]
    name = predictor.categories[0] if predictor.categories else None
    return list(predictor.score_batch(example, [name])[1].shape[1:])


def _onnx(module: nn.Module, example: Tensor, opset: int) -> bytes:
    program: Any = torch.onnx.export(
        module,
        (example,),
        input_names=["images"],
        output_names=list(OUTPUTS),
        opset_version=opset,
        dynamic_shapes={"images": {0: "batch"}},
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    written = next(each.version for each in model.opset_import if not each.domain)
    if written != opset:
        msg = f"opset={opset}: torch writes this model with {written}; give opset={written}"
        raise UserError(msg)
    return bytes(model.SerializeToString())


@torch.no_grad()  # a change of this mode inside would become a part that cannot be loaded again
def _torch(module: nn.Module, example: Tensor) -> bytes:
    program = torch.export.export(
        module,
        (example,),
        dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
        strict=False,
    )
    out = io.BytesIO()
    torch.export.save(program, out)
    return out.getvalue()


@torch.no_grad()
def _check(module: nn.Module, example: Tensor, kind: Format, content: bytes) -> None:
    """Run the file on as many images as it was not exported with, and compare."""
    images = torch.cat([example, example.flip(0)])[:3]
    expected = module(images)
    if kind == "onnx":
        runtime = import_module("onnxruntime")
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        values = session.run(list(OUTPUTS), {"images": images.numpy()})
        found = dict(zip(OUTPUTS, map(torch.from_numpy, values), strict=True))
    else:
        found = torch.export.load(io.BytesIO(content)).module()(images)
    for name in OUTPUTS:
        difference = float((found[name] - expected[name]).abs().max())
        if not difference <= TOLERANCE * float(expected[name].abs().max()):
            msg = (
                f"the exported {name} differs from the checkpoint's by up to {difference:.2g}: "
                "nothing was written; please report it with the detector's settings"
            )
            raise UserError(msg)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporters' remarks about their own work off the screen."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
