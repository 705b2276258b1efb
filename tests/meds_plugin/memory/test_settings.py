from __future__ import annotations

from typing import Any

import pytest

from meds_plugin.memory.settings import MemorySettings
from meds_plugin.utils.errors import UserError


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"ensemble": "some"}, "memory.ensemble must be expected or bootstrap"),
        ({"unit": "pixel"}, "memory.unit must be image or patch"),
        ({"ratio": 0.0}, r"memory.ratio must be in \(0, 1\]"),
        ({"ratio": 1.5}, r"memory.ratio must be in \(0, 1\]"),
        ({"size": 0}, "memory.size must be at least 1"),
        ({"ensemble": "bootstrap", "unit": "patch"}, "need memory.ensemble=expected"),
        ({"ensemble": "interval", "leave_self_out": True}, "need memory.ensemble=expected"),
        ({"interval": [0.3, 0.1]}, r"memory.interval must be two ascending shares in \[0, 1\]"),
        ({"interval": [0, 1.1]}, "memory.interval must be two ascending shares"),
        ({"interval": 0.3}, "memory.interval must be two ascending shares"),
        ({"interval": [0, True]}, "memory.interval must be two ascending shares"),
    ],
)
def test_names_the_wrong_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=key):
        MemorySettings(**settings)
