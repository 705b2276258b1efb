"""Command lines of KEY=VALUE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from meds_plugin.config.command_line import choice, number, read_options, required, serve, switch
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXTS = ("ckpt", "images", "output")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("a b.png", "a b.png"),
        ("x=1, [y] {z}: #'.png", "x=1, [y] {z}: #'.png"),
        ("'quoted for another tool'", "quoted for another tool"),
        ('"two"', "two"),
        ("${oc.env:HOME}", "${oc.env:HOME}"),
        ("2024", "2024"),
        ("true", "true"),
        ("'", "'"),
        ("null", None),
        ("", ""),
    ],
)
def test_names_of_files_are_taken_as_they_stand(given: str, text: str | None) -> None:
    assert read_options("predict", [f"images={given}"], texts=TEXTS)["images"] == text


@pytest.mark.parametrize(
    ("given", "value"),
    [("1e-3", 0.001), ("0.5", 0.5), ("3", 3), ("[0, 1e2]", [0, 100.0]), ("null", None)],
)
def test_other_values_are_yaml(given: str, value: object) -> None:
    assert read_options("predict", [f"scale={given}"], texts=TEXTS)["scale"] == value


@pytest.mark.parametrize("argument", ["scale", "--scale=1", "-m", "encoder=1", "=1", "scal=1"])
def test_what_is_no_option_is_told_with_those_there_are(argument: str) -> None:
    with pytest.raises(UserError, match="is no option: give KEY=VALUE with one of ckpt, images"):
        read_options("predict", [argument], texts=TEXTS)


@pytest.mark.parametrize("text", ["[", "{a", "${nothing}", "a: b: c"])
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_options("predict", [f"scale={text}"], texts=TEXTS)


def test_values_of_a_kind() -> None:
    options: dict[str, Any] = {"a": 3, "b": True, "c": "x", "d": None, "e": ""}
    assert (number(options, "a", 3), switch(options, "b"), choice(options, "c", ("x", "y"))) == (
        3,
        True,
        "x",
    )
    assert choice(options, "d", ("x",)) is None
    assert required(options, "c", "FILE") == "x"
    for call in (
        lambda: number(options, "a", 4),
        lambda: number(options, "b", 0),
        lambda: switch(options, "a"),
        lambda: choice(options, "c", ("y",)),
        lambda: required(options, "d", "FILE"),
        lambda: required(options, "e", "FILE"),
    ):
        with pytest.raises(UserError, match=r"must be|is missing"):
            call()


def test_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(options: Mapping[str, Any]) -> None:
        msg = f"no\nsuch {options['ckpt']}"
        raise UserError(msg)

    assert serve("predict", refuse, ["ckpt=a"], texts=TEXTS) == 2
    assert capsys.readouterr().err == "meds_plugin: no such a\n"
    assert serve("predict", lambda _: None, [], texts=TEXTS) == 0
    assert serve("predict", refuse, ["ckpt=a", "--help"], texts=TEXTS) == 0
    assert "ckpt: null" in capsys.readouterr().out
