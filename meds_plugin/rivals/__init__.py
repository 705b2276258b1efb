"""Methods on frozen features, without a detector, that MeDS is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from meds_plugin.rivals.fun_ad import FunAD
from meds_plugin.rivals.inreach import InReach
from meds_plugin.rivals.musc import MuSc
from meds_plugin.rivals.patchcore import PatchCore
from meds_plugin.rivals.softpatch import SoftPatch

if TYPE_CHECKING:
    from typing import Any

    from meds_plugin.rivals.base import Rival

__all__ = ["RIVALS", "FunAD", "InReach", "MuSc", "PatchCore", "SoftPatch", "make_rival"]

# By the names under which `method=` and the sections of the configuration know them.
RIVALS: dict[str, type[Rival]] = {
    "patchcore": PatchCore,
    "softpatch": SoftPatch,
    "inreach": InReach,
    "fun_ad": FunAD,
    "musc": MuSc,
}


def make_rival(method: str, given: Rival | Mapping[str, Any] | None = None) -> Rival | None:
    """Return the rival of a method; ``None`` if it is not one.

    Args:
        method: As in ``method=``.
        given: The rival itself, or some of its settings by name; default: its authors' settings.
    """
    kind = RIVALS.get(method)
    if kind is None:
        return None
    return kind(**(given or {})) if given is None or isinstance(given, Mapping) else given
