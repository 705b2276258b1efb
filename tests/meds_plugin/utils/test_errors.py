from __future__ import annotations

from typing import TYPE_CHECKING

from meds_plugin.utils.errors import UserError, print_error

if TYPE_CHECKING:
    import pytest


def test_an_error_is_printed_as_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(UserError("no\n  such file"))
    print_error("lost", rank=0)
    assert tuple(capsys.readouterr()) == (
        "",
        "meds_plugin: no such file\nmeds_plugin: rank 0: lost\n",
    )
