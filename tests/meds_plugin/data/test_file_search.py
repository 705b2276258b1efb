from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meds_plugin.data.file_search import is_folder
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    import os


def test_a_folder_that_may_not_be_entered_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stat(path: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "in").mkdir()
    (tmp_path / "file").touch()
    assert is_folder(tmp_path)
    assert not is_folder(tmp_path / "none")
    assert not is_folder(tmp_path / "file" / "x")
    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(UserError, match=r"in cannot be read \(Permission denied\); check its perm"):
        is_folder(tmp_path / "in")
