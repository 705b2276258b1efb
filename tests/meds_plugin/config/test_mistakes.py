"""One line for what Hydra refuses."""

from __future__ import annotations

import re

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from meds_plugin.config.mistakes import check_names, check_sections, explain
from meds_plugin.utils.errors import UserError
from tests.test_configs import composed


@pytest.fixture(autouse=True)
def _started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDS_STARTED", "now")


def line(*overrides: str) -> str:
    with pytest.raises((HydraException, OmegaConfBaseException)) as refused:
        composed(*overrides)
    text = explain(refused.value, overrides)
    assert "hydra.cc" not in text
    assert "To append to your config" not in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("noize=0.4", "noise"),
        ("Noise=0.4", "noise"),
        ("data.rooot=x", "data.root"),
        ("datta.rooot=x", "data.root"),
        ("memory.ration=0.1", "memory.ratio"),
        ("backbone.detector.dropuot=0.1", "backbone.detector.dropout"),
        ("encoder.pyramid.strid=8", "encoder.pyramid.stride"),
        ("bakbone=hvq", "backbone"),
        ("experment=paper_mvtec", "experiment"),
        ("hydra/lancher=local", "hydra/launcher"),
        # Given without the section.
        ("root=/photos", "data.root"),
        ("device=cuda", "trainer.devices"),
        ("weights=x", "encoder.weights or encoder.pyramid.weights"),
        # In the wrong section.
        ("data.ratio=0.1", "memory.ratio"),
    ],
)
def test_a_mistyped_key_gets_its_nearest(given: str, nearest: str) -> None:
    key = given.partition("=")[0]
    assert line(given) == f"{key} is not a key: did you mean {nearest}?".replace("\\", "")


def test_without_a_near_key_there_is_a_list() -> None:
    there = "selection.foo is not a key: selection has k, k_start, memory, hold, top"
    assert line("selection.foo=1") == there
    top = line("qqq=1")
    assert top.startswith(
        "qqq is not a key: there are encoder, data, backbone, trainer, logger, seed, "
    )
    assert top.endswith(", ...")
    assert top.count(",") == 15
    assert line("seed.foo=1") == "seed.foo is not a key: seed has no keys below it"
    assert "any other as +backbone.detector.widht=VALUE" in line(
        "backbone=entry_point", "backbone.detector.widht=3"
    )


def test_what_a_detector_takes_beyond_its_defaults_is_given_with_a_plus() -> None:
    key = "backbone.detector.heads"
    assert line(f"{key}=2") == f"{key} has no default: give +{key}=VALUE"


def test_a_key_that_is_there_needs_no_plus() -> None:
    assert line("+seed=3") == "seed exists already: leave out the +"


@pytest.mark.parametrize(
    ("given", "quoted"),
    [
        ("data.categories=[Teil (1),b]", "\"data.categories=['Teil (1)',b]\""),
        ("method=Größe", "\"method='Größe'\""),
        ("method=$a#", "'method='\"'\"'$a#'\"'\"''"),  # the shell would replace $a
    ],
)
def test_what_must_be_quoted_is_shown_quoted(given: str, quoted: str) -> None:
    assert line(given) == f"{given} cannot be read: quote the text, as in {quoted}"


def test_other_mistakes() -> None:
    assert line("noise") == "noise is not a setting: give KEY=VALUE"
    assert line("größe=1").startswith("größe is not a key")
    assert line("noise=0,1").startswith("noise=0,1: give -m to run each")
    assert line("noise=choice(0,1)").startswith("noise=choice(0,1): give -m to run each")
    assert re.search("choose from anomalib, .*dinomaly", line("backbone=resnet"))
    assert "not a valid bool" in line("hydra.job.chdir=abc")
    assert "nois" in line("~nois")


def test_names_of_a_section() -> None:
    check_names({"a": 1}, ["a", "b"], "part")
    with pytest.raises(UserError, match=r"^part.ratoi is not a key: did you mean part.ratio\?$"):
        check_names({"ratio": 1, "ratoi": 2}, ["ratio"], "part")


def test_a_section_is_no_single_value() -> None:
    check_sections(composed())
    with pytest.raises(UserError, match=r"steps is a section, .* steps.distill, steps.finetune"):
        check_sections(composed("steps=100"))
    check_sections(OmegaConf.create({}))  # a configuration of the user's own
