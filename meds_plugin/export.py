"""Export a trained detector: ``python -m meds_plugin.export ckpt=RUN/model.ckpt output=FILE``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

from meds_plugin.config.command_line import Options, run_command
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from meds_plugin.prediction.export import Format

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong."""
    sys.exit(run_command("export", _export, arguments))


def _export(options: Options) -> None:
    ckpt, output = options.text("ckpt"), options.path("output")
    overwrite, trust = options.flag("overwrite"), options.flag("trust")
    opset = options.whole_number("opset", minimum=1)
    asked = options.choice("format", ("onnx", "torch"))
    weights, category = options.optional("encoder.weights"), options.optional("category")
    # Heavy imports come late: a wrong option is answered at once.
    from meds_plugin.prediction.export import FORMATS, describe, export_bytes
    from meds_plugin.prediction.load import load
    from meds_plugin.prediction.predictor import AlarmSettings
    from meds_plugin.utils.atomic import write_bytes, write_json

    alarm = AlarmSettings(options.value("false_alarm_rate"))
    file, kind = _target(output, asked, FORMATS)
    about = file.with_suffix(".json")
    taken = [each for each in (file, about) if each.exists()]
    if taken and not overwrite:
        msg = f"{taken[0]} exists already: give another output, or overwrite=true"
        raise UserError(msg)
    predictor = load(ckpt, device="cpu", encoder_weights=weights, trust=trust)
    content = export_bytes(predictor, kind, category=category, opset=opset)
    text = describe(predictor, kind, alarm=alarm, category=category, opset=opset)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, content)
        write_json(about, text)
    except OSError as error:
        msg = f"output={file} cannot be written ({error.strerror}): give another"
        raise UserError(msg) from error
    if predictor.cut_short:
        print(f"warning: {predictor.source}: {predictor.cut_short}", file=sys.stderr)
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
