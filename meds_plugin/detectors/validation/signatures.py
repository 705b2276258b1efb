"""Faults of a detector that show without running it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from torch import nn

from meds_plugin.detectors.outputs import kind_of
from meds_plugin.detectors.view import takes_category
from meds_plugin.utils.errors import DetectorError

if TYPE_CHECKING:
    from meds_plugin.detectors.view import DetectorView

__all__ = ["check_signatures"]


def check_signatures(view: DetectorView) -> None:
    """Refuse a detector whose methods or parameters cannot work.

    Raises:
        DetectorError: If ``forward`` is missing, ``loss`` has another signature, or if there are no
            parameters to train, or some are frozen, given twice or not the detector's.
    """
    name = type(view.detector).__name__
    if view.own("anomaly_map") is None and type(view.detector).forward is nn.Module.forward:
        msg = f"{name} has no forward: write forward(images) that returns an anomaly map [B, h, w]"
        raise DetectorError(msg)
    if (loss := view.own("loss")) is not None:
        category = {"category": 0} if takes_category(loss) else {}
        try:
            inspect.signature(loss).bind(None, step=0, total_steps=1, **category)
        except TypeError as error:
            msg = f"{view.name_of('loss')} must take (encoded, *, step, total_steps): {error}"
            raise DetectorError(msg) from None
    _check_parameters(view)


def _check_parameters(view: DetectorView) -> None:
    """Check the parameters that the optimiser gets."""
    name, method = type(view.detector).__name__, view.name_of("parameter_groups")
    names = {id(parameter): key for key, parameter in view.detector.named_parameters()}
    seen: set[int] = set()
    for group in view.parameter_groups():
        for parameter in group["params"]:
            fault = None
            if id(parameter) not in names:
                fault = f"gives {kind_of(parameter)} that is no parameter of {name}"
            elif id(parameter) in seen:
                fault = f"gives {names[id(parameter)]} twice: name it once"
            elif not parameter.requires_grad:
                fault = (
                    f"gives {names[id(parameter)]}, which is frozen: leave it out, or set its "
                    "requires_grad"
                )
            if fault:
                msg = f"{method} {fault}"
                raise DetectorError(msg)
            seen.add(id(parameter))
    if not seen:
        given = view.own("parameter_groups") is not None
        why = f"{method} gives none" if given else "none has requires_grad=True"
        msg = f"{name} has no trainable parameter: {why}"
        raise DetectorError(msg)
