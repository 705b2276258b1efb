"""Command lines of options over a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meds_plugin.config.command_line import Options, run_command
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable


def plot(*arguments: str) -> Options:
    return Options("plot", arguments, positional="path")


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
        ("'null'", "null"),
        ("null", None),
        ("", ""),
    ],
)
def test_texts_are_taken_as_they_stand(given: str, text: str | None) -> None:
    assert Options("predict", [f"images={given}"]).optional("images") == text


@pytest.mark.parametrize(
    ("given", "value"),
    [("1e-3", 0.001), ("0.5", 0.5), ("3", 3), ("[0, 1e2]", [0, 100.0]), ("null", None)],
)
def test_other_values_are_yaml(given: str, value: object) -> None:
    assert Options("predict", [f"scale={given}"]).value("scale") == value


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs/a", "beside=runs/b=1", "format=svg"),
        ("--format", "svg", "runs/a", "--beside", "runs/b=1"),
        ("--beside=runs/b=1", "path=runs/a", "--format=svg"),
        ("format=png", "--path", "runs/a", "--beside=runs/b=1", "format=svg"),  # the last one
    ],
)
def test_all_spellings_mean_the_same(arguments: tuple[str, ...]) -> None:
    options = plot(*arguments)
    assert (options.path("path"), options.path("beside")) == (Path("runs/a"), Path("runs/b=1"))
    assert options.choices("format", ("png", "svg")) == ["svg"]


def test_a_dotted_key_and_a_negative_number_may_stand_apart() -> None:
    options = Options("predict", ["--encoder.weights", "a.pt", "--threshold", "-0.5"])
    assert (options.text("encoder.weights"), options.value("threshold")) == ("a.pt", -0.5)


@pytest.mark.parametrize(
    "arguments",
    [
        ("a", "--merge", "x=1.csv", "b c.csv", "--move"),
        ("--move", "a", "merge=x=1.csv", "merge=b c.csv"),
        ("--merge=x=1.csv", "--move", "TRUE", "--merge", "b c.csv", "--run", "a"),
    ],
)
def test_keys_that_stand_alone_or_take_several_values(arguments: tuple[str, ...]) -> None:
    options = Options("review", arguments, positional="run")
    assert options.paths("merge") == [Path("x=1.csv"), Path("b c.csv")]
    assert (options.flag("move"), options.flag("link")) == (True, False)
    assert options.path("run") == Path("a")
    assert not Options("review", ["--move", "false"]).flag("move")
    assert Options("review", []).paths("merge") == []
    with pytest.raises(UserError, match="--merge needs a value"):
        Options("review", ["--merge", "--move"])


def test_a_positional_folder_may_hold_an_equals_sign() -> None:
    assert plot("runs/noise=0.4").path("path") == Path("runs/noise=0.4")
    assert plot("path=noise=0.4").path("path") == Path("noise=0.4")


@pytest.mark.parametrize(
    "argument", ["scale", "--scal=1", "--scal", "-m", "-scale=1", "encoder=1", "=1", "scal=1"]
)
def test_what_is_no_option_is_told_with_those_there_are(argument: str) -> None:
    with pytest.raises(UserError, match="is not an option: give KEY=VALUE with one of ckpt, imag"):
        Options("predict", [argument])


@pytest.mark.parametrize("arguments", [("a", "b"), ("path=a", "b"), ("pth=a",), ("-x",), ("--x",)])
def test_what_is_no_option_is_not_taken_as_positional(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=f"'{arguments[-1]}' is not an option: .* path, beside"):
        plot(*arguments)


@pytest.mark.parametrize("arguments", [("--format",), ("--format", "--beside", "a")])
def test_a_value_that_is_missing(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="--format needs a value: --format=VALUE"):
        plot("a", *arguments)


def test_what_must_be_given_is_told_with_the_usage() -> None:
    for options in (plot(), plot("path="), plot("path=null")):
        with pytest.raises(UserError, match=r"^path is missing: python -m meds_plugin.plot PATH$"):
            options.path("path")


@pytest.mark.parametrize("text", ["[", "{a", "${nothing}", "a: b: c"])
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        Options("predict", [f"scale={text}"]).value("scale")


def test_values_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    options = plot("path=~/a", "beside=", "format=svg,png")
    assert options.path("path") == Path("/home/me/a")
    assert options.optional_path("beside") is None
    assert options.choices("format", ("png", "svg")) == ["svg", "png"]
    assert plot("format=svg").choice("format", ("png", "svg")) == "svg"
    assert plot("format=null").choice("format", ("png", "svg")) is None
    assert plot("format=3").whole_number("format", minimum=3) == 3
    assert plot("format=true").flag("format") is True


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("3", lambda options: options.whole_number("format", minimum=4)),
        ("true", lambda options: options.whole_number("format", minimum=0)),
        ("1", lambda options: options.flag("format")),
        ("svg,gif", lambda options: options.choices("format", ("svg", "png"))),
        ("svg,png", lambda options: options.choice("format", ("svg", "png"))),
        ("null", lambda options: options.choices("format", ("svg", "png"))),
    ],
)
def test_values_of_another_kind(value: str, read: Callable[[Options], object]) -> None:
    with pytest.raises(UserError, match=r"must be|choose from svg, png|is missing"):
        read(plot(f"format={value}"))


def test_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(options: Options) -> None:
        msg = f"no\nsuch {options.text('ckpt')}"
        raise UserError(msg)

    assert run_command("predict", refuse, ["ckpt=a"]) == 2
    assert capsys.readouterr().err == "meds_plugin: no such a\n"
    assert run_command("predict", lambda _: None, []) == 0
    assert run_command("predict", refuse, ["ckpt=a", "--help"]) == 0
    assert "ckpt: null" in capsys.readouterr().out
