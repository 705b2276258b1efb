"""Compiles what trains of a detector, without another name for any of its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from meds_plugin.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meds_plugin.detector import DetectorView

__all__ = ["compile_detector"]


def compile_detector(view: DetectorView, how: bool | str) -> None:
    """Have `torch.compile` rewrite the modules that train when they are first called.

    A detector that is only called is compiled as a whole. Of one with methods of its own, each
    trainable submodule is: a method that takes the number of the step would be compiled anew in
    every step. Blocks of one kind share what was compiled.

    Args:
        view: The detector.
        how: ``False``: not at all. ``True``: by torch's default backend. Or a backend's name.

    Raises:
        UserError: If there is no such backend.
    """
    if how is False:
        return
    backend = "inductor" if how is True else how
    _check(backend)
    if view.own("anomaly_map") is None and view.own("loss") is None:
        view.detector.compile(backend=backend)
        return
    trained = {id(parameter) for parameter in view.trainable_parameters()}
    for part in _parts(view.detector, trained):
        part.compile(backend=backend)


def _parts(module: nn.Module, trained: set[int]) -> Iterator[nn.Module]:
    """Yield the topmost submodules with parameters that train; lists are only looked into."""
    for child in module.children():
        if not any(id(parameter) in trained for parameter in child.parameters()):
            continue
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from _parts(child, trained)
        else:
            yield child


def _check(backend: object) -> None:
    from torch import _dynamo

    known = _dynamo.list_backends(exclude_tags=())
    if backend not in known:
        msg = (
            f"compile must be true, false or a backend of torch.compile "
            f"({', '.join(sorted(known))}), got {backend!r}"
        )
        raise UserError(msg)
