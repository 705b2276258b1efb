"""Compiles the trainable part of a detector; the names of its weights stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meds_plugin.detectors.view import DetectorView

__all__ = ["check_backend", "compile_detector"]


def compile_detector(view: DetectorView, backend: str) -> None:
    """Have `torch.compile` rewrite the modules that train when they are first called.

    A detector without its own ``anomaly_map`` and ``loss`` is compiled as a whole. Otherwise, each
    topmost submodule whose parameters all train is compiled, not the methods: one that takes the
    step's number would be recompiled at every step. Blocks of one kind share compiled code.

    Args:
        view: The detector.
        backend: From `check_backend`; if empty, nothing is compiled.
    """
    if not backend:
        return
    if view.own("anomaly_map") is None and view.own("loss") is None:
        view.detector.compile(backend=backend)
        return
    trained = {id(parameter) for parameter in view.trainable_parameters()}
    for part in _parts(view.detector, trained):
        part.compile(backend=backend)


def _parts(module: nn.Module, trained: set[int]) -> Iterator[nn.Module]:
    """Yield the topmost submodules that train as a whole, but the members of lists one by one."""
    for child in module.children():
        trains = [id(parameter) in trained for parameter in child.parameters()]
        if all(trains) and trains and not isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield child
        elif any(trains):
            yield from _parts(child, trained)


def check_backend(how: bool | str) -> str:
    """Return the backend's name, empty for no compilation.

    Args:
        how: ``False`` for none, ``True`` for torch's default backend, or a backend's name.

    Raises:
        UserError: If there is no such backend.
    """
    if how is False:
        return ""
    backend = "inductor" if how is True else how
    from torch import _dynamo

    known = _dynamo.list_backends(exclude_tags=())
    if backend not in known:
        msg = (
            f"compile must be true, false or a backend of torch.compile "
            f"({', '.join(sorted(known))}), got {backend!r}"
        )
        raise UserError(msg)
    return backend
