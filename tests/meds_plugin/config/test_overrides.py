"""Paths on the main job's command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from meds_plugin.config.overrides import (
    config_options,
    is_sweep,
    prepare_arguments,
    quote,
    requote,
    split_top_level,
    value_of,
)
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from hydra.core.override_parser.types import Override

ODD = (
    "Größe",
    "螺丝",
    "a b",
    " a",
    "a,b",
    "(a)",
    "[a]",
    "{a: b}",
    "a;b",
    "a&b",
    "a=b",
    "#a",
    "it's",
    'a "b"',
    "!a",
    "a~b",
    "~no such user/a",
    "%a",
    "a@b",
    "a+b",
    "a^b",
    "a$b",
    "$a/b",
    "a\\",
    "a\\'b",
    "a\nb",
    "a:b",
    "glob(*)",
    "choice(a,b)",
    "007",
    "1e3",
    "true",
    "*.png",
)


def read(*arguments: str) -> Override:
    """Return the last argument as Hydra reads it."""
    return OverridesParser.create().parse_override(prepare_arguments(arguments)[-1])


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("key", ["data.root", "+data.file", "resume", "hydra.run.dir", "data.test"])
def test_paths_are_taken_as_they_stand(key: str, text: str) -> None:
    for path in (text, f"/photos/{text}", f"{text}/x"):
        override = read(f"{key}={path}")
        assert not override.is_sweep_override()
        assert override.value() == ([text[1:-1]] if (key, path) == ("data.test", "[a]") else path)
        # Ranks and jobs get the result as their arguments.
        once = prepare_arguments([f"{key}={path}"])
        assert prepare_arguments(once) == once


@pytest.mark.parametrize(
    "argument",
    [
        "data.root='a b'",
        'data.root="it\'s"',
        "data.root='it\\'s'",
        "data.root=null",
        "data.root=NULL",
        "data.root=",
        "data.root=/plain/path_1.0",
        "data.root=${oc.env:HOME}/photos",
        "encoder=dinov2_reg_base",
        "noise=0.4",
        "data.categories=[a,b]",
        "~data.root",
    ],
)
def test_what_needs_no_quotes_stays(argument: str) -> None:
    assert prepare_arguments([argument]) == [argument]


def test_an_interpolation_within_an_odd_path_is_still_one() -> None:
    (argument,) = prepare_arguments(["data.root=${oc.env:HOME}/a (b)"])
    assert argument == "data.root='${oc.env:HOME}/a (b)'"


def test_a_leading_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me, too")
    assert read("hydra.run.dir=~/runs").value() == "/home/me, too/runs"
    assert read("data.root=~").value() == "/home/me, too"


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("[a (1),b]", ["a (1)", "b"]),
        ("['a,b', c d]", ["a,b", "c d"]),
        ("[]", []),
        ("[*/test, x=1]", ["*/test", "x=1"]),
    ],
)
def test_lists_of_paths(value: str, items: list[str]) -> None:
    assert read(f"data.test={value}").value() == items


def swept(argument: str) -> list[object]:
    """Return the values of a sweep's jobs."""
    override = read("-m", argument)
    if not override.is_sweep_override():
        return [override.value()]
    jobs = [requote(f"data.root={text}") for text in override.sweep_string_iterator()]
    return [read(job).value() for job in jobs]


def test_commas_separate_the_values_of_a_sweep(tmp_path: Path) -> None:
    assert swept("data.root=/a,/b c, /d") == ["/a", "/b c", "/d"]
    assert swept("data.root='/a,1',\"/b\"") == ["/a,1", "/b"]
    assert swept("data.root=/a,null") == ["/a", None]
    whole, part = tmp_path / "x,y,z", tmp_path / "x,y"
    whole.mkdir()
    part.touch()
    assert swept(f"data.root={whole}") == [str(whole)]
    assert swept(f"data.root={part},{whole},/b") == [str(part), str(whole), "/b"]
    assert swept(f"data.root={part},z") == [str(whole)]  # the longest that exists


def test_sweeps_written_as_functions_stay() -> None:
    argument = "data.root=choice(/a,'/b c')"
    assert prepare_arguments(["-m", argument]) == ["-m", argument]
    assert swept(argument) == ["/a", "/b c"]


def test_what_hydra_has_escaped_is_quoted_again() -> None:
    assert requote("data.root=/b\\ c\\,d") == "data.root='/b c,d'"
    assert requote("data.test=[a\\ b,c]") == "data.test=['a b','c']"
    for other in ("data.root=null", "method=a\\ b", "data.test=null"):
        assert requote(other) == other


def test_folders_of_runs_have_one_value_in_a_sweep() -> None:
    for key in ("hydra.sweep.dir", "hydra.sweep.subdir", "resume"):
        assert read("-m", f"{key}=a,b (1)").value() == "a,b (1)"


def test_quotes_that_lightning_adds_to_a_folder_with_quotes() -> None:
    assert read('hydra.run.dir="/runs/a "b" \'c\'"').value() == "/runs/a \"b\" 'c'"


def test_options_go_before_overrides() -> None:
    given = ["noise=0,1", "--config-dir", "a b", "seed=1", "-m", "--config-name=x"]
    expected = ["--config-dir", "a b", "-m", "--config-name=x", "noise=0,1", "seed=1"]
    assert prepare_arguments(given) == expected
    assert config_options(given) == ["--config-dir", "a b", "--config-name=x"]


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--noise=0.4", "as in noise=0.4"),
        ("--noise", "as in noise=VALUE"),
        ("-x", "as in x=VALUE"),
        ("--config-dir", "--config-dir needs a value"),
    ],
)
def test_what_is_no_option(argument: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        prepare_arguments(["seed=1", argument])


@pytest.mark.parametrize("argument", ["-m", "--multirun", "hydra.mode=MULTIRUN"])
def test_what_starts_a_sweep(argument: str) -> None:
    assert is_sweep(["noise=0,1", argument])
    assert not is_sweep(["noise=0,1", "-multirun"])


def test_the_last_value_counts() -> None:
    arguments = prepare_arguments(["resume=a", "noise=0", "resume=it's, [b]"])
    assert value_of(arguments, "resume") == "it's, [b]"
    assert value_of(arguments, "hydra.run.dir") is None
    assert value_of(["resume=null"], "resume") is None


def test_splitting_leaves_quotes_and_brackets_whole() -> None:
    assert split_top_level("a,'b,c',[d,e],${f,g},it's,,") == [
        *("a", "'b,c'", "[d,e]", "${f,g}", "it's", "", "")
    ]


def test_a_quoted_text_reads_as_itself() -> None:
    for text in (*ODD, "", "null"):
        assert OverridesParser.create().parse_override(f"key={quote(text)}").value() == text


def test_all_that_lightnings_trainer_takes_is_given_without_a_plus() -> None:
    given = ["trainer.max_time=00:01", "trainer=default", "~trainer.profiler", "+trainer.x=1"]
    assert prepare_arguments(given) == ["++trainer.max_time=00:01", *given[1:]]
