"""Every shipped configuration composes, and what it names exists."""

from __future__ import annotations

import inspect
import math
from dataclasses import asdict
from pathlib import Path

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from meds_plugin.config.build import build_detector, settle_sizes
from meds_plugin.config.flatten import flatten
from meds_plugin.config.location import conf_dir
from meds_plugin.evaluation.protocol import EvaluationProtocol
from meds_plugin.memory.settings import MemorySettings
from meds_plugin.rivals import RIVALS
from meds_plugin.runs.published import published_dataset
from meds_plugin.training.optimizer import OptimizerSettings
from meds_plugin.training.stages import METHODS

GROUPS = ("backbone", "data", "encoder", "experiment", "logger", "trainer")
CHOICES = [
    f"{group}={path.stem}"
    for group in GROUPS
    for path in sorted((Path(conf_dir()) / group).glob("[!_]*.yaml"))  # _base is part of others
]


@pytest.fixture(autouse=True)
def _started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDS_STARTED", "now")


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_resolves(choice: str) -> None:
    config = composed(choice)
    OmegaConf.resolve(config)
    settle_sizes(config)
    MemorySettings(**config.memory)
    EvaluationProtocol(**config.evaluation)
    OptimizerSettings(**config.backbone.optimizer)
    for node in (config.data.source, config.encoder, config.backbone.detector):
        target = get_object(node._target_)
        known = inspect.signature(target).parameters
        given = {str(key) for key in node if not str(key).startswith("_")}
        assert given <= set(known), node._target_


@pytest.mark.parametrize("backbone", ["dinomaly", "inp_former", "hvq"])
@pytest.mark.parametrize(
    ("encoder", "size", "grid"),
    [
        ("efficientnet_lite0", [64, 96], (4, 6)),
        ("efficientnet_lite2", [64, 64], (4, 4)),
        ("efficientnet_b4", [64, 64], (4, 4)),
        ("dinov2_small", [56, 28], (4, 2)),
    ],
)
def test_every_detector_takes_every_encoder(
    backbone: str, encoder: str, size: list[int], grid: tuple[int, int]
) -> None:
    config = composed(f"backbone={backbone}", f"encoder={encoder}", "encoder.weights=random")
    config.encoder.image_size = size
    detector = build_detector(config).eval()
    with torch.no_grad():
        maps = detector(torch.randn(1, 3, *size))
    assert maps.shape == (1, *grid)
    assert bool(torch.isfinite(maps).all())


LAUNCHERS = sorted(path.stem for path in (Path(conf_dir()) / "hydra/launcher").glob("*.yaml"))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_composes_without_a_warning_and_resolves(
    launcher: str, recwarn: pytest.WarningsRecorder
) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        overrides = [f"hydra/launcher={launcher}"]
        config = compose("config", overrides=overrides, return_hydra_config=True)
    OmegaConf.resolve(config.hydra.launcher)
    assert config.hydra.launcher._target_.startswith("hydra_plugins.")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("launcher", "module", "settings"),
    [
        ("local", "hydra_joblib_launcher.config", "JobLibLauncherConf"),
        ("slurm", "hydra_submitit_launcher.config", "SlurmQueueConf"),
        ("cluster", "hydra_ray_launcher._config", "RayLauncherConf"),
    ],
)
def test_a_launchers_keys_are_its_plugins(launcher: str, module: str, settings: str) -> None:
    theirs = getattr(pytest.importorskip(f"hydra_plugins.{module}"), settings)
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        overrides = [f"hydra/launcher={launcher}"]
        config = compose("config", overrides=overrides, return_hydra_config=True)
    assert set(config.hydra.launcher) <= set(inspect.signature(theirs).parameters)
    get_object(config.hydra.launcher._target_)


def test_there_is_a_configuration_in_every_group() -> None:
    assert {choice.split("=")[0] for choice in CHOICES} == set(GROUPS)


COMMANDS = {path.stem: path for path in Path(conf_dir()).glob("*.yaml") if path.stem != "config"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_reads_every_option_of_its_configuration(command: str) -> None:
    module = "review.__main__" if command == "review" else command
    code = Path(str(get_object(f"meds_plugin.{module}").__file__)).read_text()
    for key in flatten(OmegaConf.to_container(OmegaConf.load(COMMANDS[command]))):  # type: ignore[arg-type]
        assert f'"{key}"' in code
    usage = COMMANDS[command].read_text().splitlines()[0]
    assert usage.startswith(f"# python -m meds_plugin.{command} ")


def test_commands_are_no_choices_of_the_main_job() -> None:
    assert COMMANDS.keys() == {"predict", "export", "plot", "table", "review"}
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        groups = GlobalHydra.instance().config_loader().list_groups("")
    assert not COMMANDS.keys() & set(groups)
    assert composed("review=false").review is False


def test_the_trainers_keys_are_lightnings() -> None:
    keys = set(composed().trainer)
    assert keys <= set(inspect.signature(L.Trainer.__init__).parameters)


def test_the_papers_experiment_is_the_papers_setting() -> None:
    config = composed("experiment=paper_mvtec")
    assert config.encoder.model.startswith("vit_base_patch14_reg4_dinov2")
    assert (config.data.image_size, config.data.crop, config.data.batch_size) == (448, 392, 16)
    assert (config.steps.distill, config.steps.finetune) == (10_000, 10_000)
    assert config.encoder.layers == [2, 3, 4, 5, 6, 7, 8, 9]
    assert (config.memory.ensemble, config.memory.size, config.memory.ratio) == (
        "bootstrap",
        100,
        0.1,
    )


@pytest.mark.parametrize("name", ["paper_mvtec", "paper_selection"])
def test_the_papers_experiments_select_as_the_paper_does(name: str) -> None:
    config = composed(f"experiment={name}")
    assert (config.selection.k, config.selection.k_start) == (3, 0)
    assert (config.selection.memory, config.selection.hold) == (0, 0)
    assert config.memory.keep == 1


@pytest.mark.parametrize("method", RIVALS)
def test_rivals_have_their_authors_settings(method: str) -> None:
    given = OmegaConf.to_container(composed()[method])
    assert isinstance(given, dict)
    defaults = {key: _listed(value) for key, value in asdict(RIVALS[method]()).items()}  # type: ignore[call-overload]
    assert given == defaults


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    ("name", "noises", "jobs"),
    [
        ("tables", "0,0.1,0.2,0.4", 3 * 8 * 4 * 3),
        ("table1", "0,0.1,0.2,0.4", 3 * 8 * 4 * 3),
        ("table2", "0,0.02,0.05,0.1", 3 * 8 * 4 * 3),
        ("table3", "null", 4 * 4 * 30),
    ],
)
def test_the_papers_tables_are_sweeps_over_all_rows(name: str, noises: str, jobs: int) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("config", [f"experiment={name}"], return_hydra_config=True)
    swept = config.hydra.sweeper.params
    parsed = OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in swept.items()])
    counts = [len(list(o.sweep_iterator())) if o.is_sweep_override() else 1 for o in parsed]
    assert math.prod(counts) == jobs
    assert swept.noise == noises
    assert set(str(swept.method).split(",")) <= set(METHODS)
    paper = name != "tables"
    assert (config.steps.distill == 10_000) == paper
    assert (config.selection.memory == 0) == paper
    if name == "table3":
        categories = next(o for o in parsed if o.key_or_group == "data.categories")
        names = [str(value).strip("[]'") for value in categories.sweep_iterator()]
        assert published_dataset(names) == "real_iad"
        assert (config.noise, config.selection.k) == (None, 1)


def test_an_experiment_can_be_overridden() -> None:
    config = composed("experiment=paper_mvtec", "steps.distill=5", "encoder=efficientnet_lite1")
    assert config.steps.distill == 5
    assert config.encoder.model == "tf_efficientnet_lite1"
