"""anomalib's models as detectors: maps, losses, refusals; most need anomalib installed."""

from __future__ import annotations

import json
import logging
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from backbones.anomalib import AnomalibDetector
from backbones.anomalib_models import RECIPES, recipe_of
from meds_plugin.detectors.outputs import check_maps
from meds_plugin.detectors.validation.signatures import check_signatures
from meds_plugin.detectors.view import DetectorView
from meds_plugin.metrics import image_score
from meds_plugin.run import main
from meds_plugin.utils.errors import UserError
from tests.test_run import TINY, rows
from tests.toys import quiet_trainer, wrap

if TYPE_CHECKING:
    from pathlib import Path

VIT = {"encoder_name": "vit_small_patch14_reg4_dinov2"}
SMALL: dict[str, dict[str, Any]] = {
    "dinomaly": VIT,
    "fastflow": {"flow_steps": 2},
    "inp_former": VIT,
    "reverse_distillation": {"backbone": "resnet18"},
    "stfpm": {},
    "uflow": {"backbone": "resnet18", "flow_steps": 1},
}
TRANSFORMERS = {"dinomaly", "inp_former"}
every_model = pytest.mark.parametrize("name", sorted(RECIPES))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return ``anomalib.models``, with random weights where it would download."""
    found = pytest.importorskip("anomalib.models", reason="the extra anomalib is not installed")
    create = timm.create_model

    def untrained(*args: Any, **arguments: Any) -> nn.Module:
        network: nn.Module = create(*args, **{**arguments, "pretrained": False})
        return network

    monkeypatch.setattr(timm, "create_model", untrained)
    return found


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this environment have no anomalib."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "anomalib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "anomalib", None)


def side(name: str) -> int:
    return 56 if name in TRANSFORMERS else 64


def make(name: str, **arguments: Any) -> AnomalibDetector:
    return AnomalibDetector(name, image_size=side(name), **{**SMALL[name], **arguments})


def images(name: str, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side(name), side(name))


def made(library: Any, name: str, **arguments: Any) -> Any:
    """Return anomalib's own module, as a user of anomalib makes it."""
    from_name = make(name, **arguments)
    module = getattr(library, RECIPES[name].class_name)(
        **{**SMALL[name], **arguments}, pre_processor=_resize(side(name))
    )
    module.model.load_state_dict(from_name.model.state_dict())
    return module


def _resize(size: int) -> Any:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    processing = pytest.importorskip("anomalib.pre_processing")
    return processing.PreProcessor(transform=transforms.Resize((size, size)))


@every_model
def test_maps_are_differentiable_and_the_same_size_in_both_modes(library: Any, name: str) -> None:
    detector, batch = make(name), images(name)
    check_signatures(DetectorView(detector, encoder=nn.Identity()))
    training = detector.train()(batch)
    evaluating = detector.eval()(batch)
    for maps in (training, evaluating):
        check_maps(maps, batch=2, name=name)
        assert maps.requires_grad
        assert float(maps.detach().min()) >= 0
    assert training.shape == evaluating.shape
    assert max(evaluating.shape[1:]) <= side(name) // 4  # the features' grid, not the image's
    evaluating.sum().backward()
    reached = [p.grad is not None for p in detector.parameters() if p.requires_grad]
    assert sum(reached) >= len(reached) - 3  # Reverse Distillation makes a layer it never uses


@every_model
def test_the_frozen_part_neither_trains_nor_leaves_evaluation_mode(library: Any, name: str) -> None:
    detector = make(name).train()
    frozen = detector.recipe.frozen_parts(detector.model)
    assert frozen
    before = [value.clone() for part in frozen for value in part.state_dict().values()]
    learned = {id(p) for group in detector.parameter_groups() for p in group["params"]}
    for part in frozen:
        assert not any(module.training for module in part.modules())
        assert not any(p.requires_grad or id(p) in learned for p in part.parameters())
    detector.loss(images(name), step=0, total_steps=1).backward()
    detector(images(name))
    after = [value for part in frozen for value in part.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert detector.model.training


@every_model
def test_the_loss_is_the_models_own(
    library: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = made(library, name).train()
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    monkeypatch.setattr(module, "log_dict", lambda *args, **kwargs: None)
    detector, batch = AnomalibDetector(module).train(), images(name)
    torch.manual_seed(1)
    expected = module.training_step(SimpleNamespace(image=batch), 0)["loss"]
    torch.manual_seed(1)
    torch.testing.assert_close(detector.loss(batch, step=0, total_steps=9), expected)


def test_hard_mining_follows_the_step(library: Any) -> None:
    detector = make("dinomaly")
    detector.loss(images("dinomaly"), step=500, total_steps=9)
    assert detector.model.loss_fn.p == pytest.approx(0.45)


@pytest.mark.parametrize("name", ["dinomaly", "inp_former", "stfpm"])
def test_maps_are_anomalibs_before_resize_and_blur(library: Any, name: str) -> None:
    one_layer = {"layers": ("layer1",)} if name == "stfpm" else {}
    module = made(library, name, **one_layer).eval()
    batch = images(name)
    ours = AnomalibDetector(module).eval()(batch).unsqueeze(1)
    ours = F.interpolate(
        ours, size=batch.shape[-2:], mode="bilinear", align_corners=name in TRANSFORMERS
    )
    if name == "inp_former":
        ours = module.model.gaussian_blur(ours)
    torch.testing.assert_close(ours, module.model(batch).anomaly_map)


@pytest.mark.parametrize("name", ["fastflow", "uflow", "stfpm"])
def test_maps_of_many_layers_agree_with_anomalibs(library: Any, name: str) -> None:
    module = made(library, name).eval()
    batch = images(name, 8)
    batch[:4, :, 16:40, 16:40] *= 4
    with torch.no_grad():
        ours = AnomalibDetector(module).eval()(batch)
        theirs = F.adaptive_avg_pool2d(module.model(batch).anomaly_map, ours.shape[-2:])[:, 0]
    both = torch.stack([ours.flatten(), theirs.flatten()])
    assert float(torch.corrcoef(both)[0, 1]) > 0.9


@pytest.mark.parametrize("mode", ["add", "multiply"])
def test_reverse_distillation_is_anomalibs_before_the_blur(
    library: Any, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = "anomalib.models.image.reverse_distillation.anomaly_map"
    monkeypatch.setattr(f"{generator}.GaussianBlur2d", lambda **arguments: nn.Identity())
    detector = make("reverse_distillation", anomaly_map_mode=mode).eval()
    batch = images("reverse_distillation")
    detector.model.anomaly_map_generator.image_size = (16, 16)
    expected = detector.model(batch).anomaly_map
    torch.testing.assert_close(detector(batch).unsqueeze(1), expected)


@every_model
def test_memory_features_come_from_the_frozen_part(library: Any, name: str) -> None:
    detector, batch = make(name).train(), images(name)
    features = detector.features(batch)
    assert not features.requires_grad
    assert features.shape == ((2, 16, 384) if name in TRANSFORMERS else (2, 448, 8, 8))
    with torch.no_grad():
        for group in detector.parameter_groups():
            for parameter in group["params"]:
                parameter.add_(1.0)
    assert torch.equal(detector.eval().features(batch), features)


def test_joined_layers_count_the_same(library: Any) -> None:
    features = make("stfpm").features(images("stfpm"))
    for layer in features.split([64, 128, 256], dim=1):
        torch.testing.assert_close(layer.norm(dim=1), torch.ones(2, 8, 8))


def test_images_are_scored_by_the_models_rule(library: Any) -> None:
    maps = torch.rand(3, 20, 20)
    assert torch.equal(make("stfpm").image_score(maps), maps.amax((1, 2)))
    assert torch.equal(make("dinomaly").image_score(maps), image_score(maps, 0.01))


@every_model
def test_a_wrapped_model_goes_through_all_stages(library: Any, name: str) -> None:
    detector = make(name)
    before = [p.clone() for p in detector.parameters() if p.requires_grad]
    model = wrap(detector, distill_steps=3, finetune_steps=3)
    loader = DataLoader(TensorDataset(images(name, 8)), batch_size=4)
    quiet_trainer(model.total_steps).fit(model, loader)
    scores = model.training_scores()
    assert scores.score.shape == (8,)
    assert bool(torch.isfinite(scores.score).all())
    assert scores.memory is not None
    assert model.global_step == 6
    after = [p for p in detector.parameters() if p.requires_grad]
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_model_made_with_anomalib_is_trained_in_place(library: Any) -> None:
    module = library.Stfpm()
    assert AnomalibDetector(module).model is module.model
    with pytest.raises(UserError, match="for a model given by name"):
        AnomalibDetector(module, image_size=64)


def test_weights_are_keyed_by_the_seed(library: Any) -> None:
    first, again, other = (make("stfpm", seed=seed) for seed in (1, 1, 2))
    for ours, same, different in zip(
        first.parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(ours, same)
        assert ours.ndim < 2 or not torch.equal(ours, different)


def test_building_says_nothing(
    library: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    make("fastflow")
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "size", "wanted"),
    [
        ("dinomaly", 64, "multiples of 14"),
        ("inp_former", (56, 70), "multiples of 14 and equal"),
        ("reverse_distillation", 48, "multiples of 32"),
        ("fastflow", 72, "multiples of 16"),
    ],
)
def test_image_sizes_that_do_not_fit_are_refused(
    library: Any, name: str, size: Any, wanted: str
) -> None:
    with pytest.raises(UserError, match=rf"data\.image_size .* must be {wanted}"):
        AnomalibDetector(name, image_size=size, **SMALL[name])


def test_images_of_another_size_than_built_for_are_refused(library: Any) -> None:
    with pytest.raises(UserError, match=r"32 x 32: .* must be 64 x 64, as it was built"):
        make("fastflow")(torch.randn(1, 3, 32, 32))


def test_another_normalisation_is_refused(library: Any) -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    processor = _resize(64)
    processor.transform = transforms.Compose([transforms.Normalize([0.5] * 3, [0.5] * 3)])
    with pytest.raises(UserError, match=r"normalises images by \[\[0\.5"):
        AnomalibDetector(library.Stfpm(pre_processor=processor))


def test_wrong_arguments_are_refused(library: Any) -> None:
    with pytest.raises(UserError, match=r"takes no backbone\.detector\.depth; it takes backbone"):
        make("stfpm", depth=3)
    with pytest.raises(UserError, match=r"takes no backbone\.detector\.fuse_layer_encoder"):
        make("dinomaly", fuse_layer_encoder=[[0, 1, 2], [3, 4, 5, 6, 7]])
    with pytest.raises(UserError, match="cannot be made with these arguments: ValueError"):
        make("fastflow", backbone="resnet5")
    with pytest.raises(UserError, match=r"weights are torch\.bfloat16, .*bf16-mixed"):
        make("dinomaly", precision="float16")


def test_without_weights_the_message_says_where_to_get_them(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: Any, **arguments: Any) -> None:
        msg = "no network"
        raise OSError(msg)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"no pretrained weights \(OSError: no network\).*HF_HOME"):
        make("stfpm")


def test_every_model_of_anomalib_is_wrapped_or_refused_with_a_reason(library: Any) -> None:
    for name in library.__all__:
        if name in {recipe.class_name for recipe in RECIPES.values()}:
            recipe_of(name)
            continue
        with pytest.raises(UserError, match=r"cannot be a student: |is not wrapped: "):
            recipe_of(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("patchcore", "a memory .* rank images with backbones.anomalib_scorer"),
        ("Padim", "a memory or a statistic"),
        ("efficient_ad", "ImageNet's images"),
        ("UniNet", "is not wrapped: .* wrap it yourself"),
        ("stpfm", "none of anomalib's models"),
    ],
)
def test_unsuitable_models_are_refused_with_those_that_work(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as refusal:
        AnomalibDetector(name)
    assert f"model={name}" in str(refusal.value)
    assert ", ".join(RECIPES) in str(refusal.value)


@pytest.mark.parametrize("name", ["reverse_distillation", "ReverseDistillation", "inp-former"])
def test_names_may_be_spelled_as_anomalib_does(name: str) -> None:
    assert recipe_of(name) is RECIPES["inp_former" if "inp" in name else "reverse_distillation"]


def test_modules_of_others_are_refused() -> None:
    with pytest.raises(UserError, match=r"takes a model of anomalib\.models .* got Linear"):
        AnomalibDetector(nn.Linear(1, 1))


@pytest.mark.usefixtures("absent")
def test_without_anomalib_the_message_says_how_to_get_it() -> None:
    with pytest.raises(UserError, match=r"pip install 'meds-plugin\[anomalib\]'"):
        AnomalibDetector("stfpm")


def command_line(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *overrides: str
) -> int | str | None:
    for name in ("MEDS_STARTED", "HYDRA_FULL_ERROR"):
        monkeypatch.setenv(name, "1")  # put back afterwards
    arguments = ["meds_plugin.run", "backbone=anomalib", *overrides, f"hydra.run.dir={folder}"]
    monkeypatch.setattr(sys, "argv", arguments)
    try:
        main()
    except SystemExit as ended:
        return ended.code
    return 0


@pytest.mark.usefixtures("absent")
def test_the_command_line_refuses_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for override, remedy in (
        ("backbone.detector.model=stfpm", "pip install 'meds-plugin[anomalib]'"),
        ("backbone.detector.model=patchcore", "cannot be a student"),
    ):
        assert command_line(monkeypatch, tmp_path, override) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert remedy in line


def test_the_command_line_runs_a_model(
    library: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    overrides = [
        *TINY,
        "data.image_size=64",
        "noise=0.4",
        "backbone.detector.model=stfpm",
        "+backbone.detector.layers=[layer1,layer2]",
    ]
    assert command_line(monkeypatch, tmp_path / "run", *overrides) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["protocol"]["backbone"] == "anomalib"
    assert len(rows(tmp_path / "run" / "ranking.csv")) == 22
