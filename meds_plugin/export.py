"""Export a trained detector: ``python -m meds_plugin.export ckpt=RUN/model.ckpt output=FILE``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from meds_plugin.config.command_line import choice, number, required, serve, switch
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meds_plugin.prediction.export import Format

__all__ = ["main"]

TEXTS = ("ckpt", "output", "category", "encoder.weights")


def main() -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong."""
    sys.exit(serve("export", _export, sys.argv[1:], texts=TEXTS))


def _export(options: Mapping[str, Any]) -> None:
    ckpt = required(options, "ckpt", "RUN/model.ckpt")
    output = required(options, "output", "FILE")
    overwrite, trust = switch(options, "overwrite"), switch(options, "trust")
    opset, asked = number(options, "opset", 1), choice(options, "format", ("onnx", "torch"))
    # Heavy imports come late: a wrong option is answered at once.
    from meds_plugin.prediction.export import FORMATS, describe, export_bytes
    from meds_plugin.prediction.load import load
    from meds_plugin.prediction.predictor import AlarmSettings
    from meds_plugin.utils.atomic import write_bytes, write_json

    alarm = AlarmSettings(options["false_alarm_rate"])
    path = Path(os.path.expanduser(output))  # noqa: PTH111 - Path.expanduser raises for `~nobody`
    file, kind = _target(path, asked, FORMATS)
    about = file.with_suffix(".json")
    taken = [each for each in (file, about) if each.exists()]
    if taken and not overwrite:
        msg = f"{taken[0]} is there already: give another output, or overwrite=true"
        raise UserError(msg)
    predictor = load(ckpt, device="cpu", encoder_weights=options["encoder.weights"], trust=trust)
    category = options["category"]
    content = export_bytes(predictor, kind, category=category, opset=opset)
    text = describe(predictor, kind, alarm=alarm, category=category, opset=opset)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, content)
        write_json(about, text)
    except OSError as error:
        msg = f"output={file} cannot be written ({error.strerror}): give another"
        raise UserError(msg) from error
    print(f"wrote {file} and {about}")


def _target(path: Path, asked: str | None, formats: Mapping[str, str]) -> tuple[Path, Format]:
    """Return the file to write and its format."""
    kinds = {suffix: kind for kind, suffix in formats.items()}
    if path.is_dir() or path.suffix not in kinds:
        if path.suffix and not path.is_dir():
            msg = f"output={path} must end in {' or '.join(kinds)}, or be a folder"
            raise UserError(msg)
        kind = asked or "onnx"
        return path / f"model{formats[kind]}", cast("Format", kind)
    if asked not in (None, kinds[path.suffix]):
        msg = f"format={asked} is written into a file that ends in {formats[str(asked)]}: {path}"
        raise UserError(msg)
    return path, cast("Format", kinds[path.suffix])


if __name__ == "__main__":
    main()
