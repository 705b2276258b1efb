"""Train the embedded encoder from nothing: ``python -m backbones.pretrain``."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meds_plugin.atomic import write_bytes
from meds_plugin.errors import UserError
from meds_plugin.options import number, required, serve, switch

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

__all__ = ["main", "write_weights"]

_SIGINT = 128 + 2  # what shells report of a program that was interrupted


def main() -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong."""
    sys.exit(serve("pretrain", _work, sys.argv[1:], texts=("output", "device")))


def _work(options: Mapping[str, Any]) -> None:
    output = _writable(Path(required(options, "output", "FILE")), switch(options, "overwrite"))
    threads, half = number(options, "threads", 1), switch(options, "half")
    # Heavy imports come late: a wrong option is answered at once.
    import torch

    from backbones.pretraining import PretrainSettings, pretrain

    names = [field.name for field in fields(PretrainSettings)]
    settings = PretrainSettings(**{name: options[f"pretrain.{name}"] for name in names})
    device = _device(required(options, "device", "auto"))
    part = output.with_name(f"{output.name}.part")
    start = time.perf_counter()
    try:
        state, losses = pretrain(settings, device=device, threads=threads, progress=True, part=part)
    except KeyboardInterrupt:
        kept = f"the same command goes on from {part}" if part.is_file() else "nothing was kept yet"
        print(f"\nstopped: {kept}", file=sys.stderr)
        sys.exit(_SIGINT)
    checksum = write_weights(output, state, torch.float16 if half else torch.float32)
    part.unlink(missing_ok=True)
    seconds = time.perf_counter() - start
    print(f"{output}: sha256 {checksum}, last loss {losses[-1]:.3f}, {seconds:.0f} s on {device}")


def _writable(output: Path, overwrite: bool) -> Path:
    """Find out before the training whether its weights can be written."""
    if output.suffix != ".safetensors":
        msg = f"output={output}: give a name that ends in .safetensors"
        raise UserError(msg)
    if output.is_dir():
        msg = f"output={output} is a folder: give the name of a file"
        raise UserError(msg)
    if output.exists() and not overwrite:
        msg = f"output={output} is there: give another file, or overwrite=true"
        raise UserError(msg)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        trial = output.with_name(f".{output.name}.{os.getpid()}.tmp")
        trial.touch()
        trial.unlink()
    except OSError as error:
        msg = f"output={output} cannot be written ({error.strerror}): give another file"
        raise UserError(msg) from None
    return output


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        what = str(error).splitlines()[0]
        msg = f"device={name} cannot be used ({what}): give cpu, cuda or auto"
        raise UserError(msg) from None
    return device


def write_weights(path: Path, state: Mapping[str, Tensor], dtype: torch.dtype) -> str:
    """Write a safetensors file, whole or not at all; return its SHA-256."""
    from safetensors.torch import save

    content = save({name: value.to(dtype).contiguous() for name, value in state.items()})
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main()
