"""What a newcomer gets wrong about the protocol, and the line that says what to change."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from meds_plugin import MeDSWrapper
from meds_plugin.detectors.validation.validate import validate_detector
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.default import default_features
from meds_plugin.utils.errors import DetectorError, UserError
from tests.toys import BareDetector, FullDetector


class Counted(BareDetector):
    """Returns one of the broken maps below."""

    def broken(self, maps: Tensor) -> Any:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.broken(super().forward(images))
        return maps


def broken(change: Any) -> nn.Module:
    """Return a detector `Net` whose map goes through a function."""
    kind: type[nn.Module] = type("Net", (Counted,), {"broken": staticmethod(change)})
    return kind()


def having(base: type[nn.Module] = BareDetector, **methods: Any) -> nn.Module:
    """Return a detector `Net` with other methods."""
    kind: type[nn.Module] = type("Net", (base,), methods)
    return kind()


class Frozen(FullDetector):
    """All parameters are frozen but the optimiser's groups name them."""

    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(requires_grad=False)


class Sized(BareDetector):
    """Works on 96 x 96 images only."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(24 * 24, 24 * 24)

    def forward(self, images: Tensor) -> Tensor:
        return self.score(super().forward(images).flatten(1)).view(-1, 24, 24)  # type: ignore[no-any-return]


# The six or so that come first.
MAPS = [
    (lambda maps: maps.flatten(1), "Net.forward must return anomaly maps of shape [B, h, w]"),
    (lambda maps: maps.mean((1, 2, 3)), "a score for every place is needed, not one per image"),
    (lambda maps: maps.expand(-1, 3, -1, -1), "average over the channels"),
    (lambda maps: {"map": maps}, "Net.forward must return one tensor; it returned a dict"),
    (lambda maps: (maps, maps), "Net.forward must return one tensor; it returned a tuple"),
    (lambda maps: maps.squeeze() if len(maps) == 1 else maps, "squeeze(1) instead of squeeze()"),
    (lambda maps: maps[:1], "for 2 images it returned (1, 16, 16)"),
    (lambda maps: maps.detach(), "Net.forward returned a map without gradient: leave out detach()"),
    (lambda maps: (maps > 1).long(), "a map of torch.int64: return floating-point values"),
    (lambda maps: maps / 0, "values that are not finite: look for a logarithm, a root"),
    (lambda maps: (maps - maps.detach()).sqrt(), "the gradient of Net.forward is not finite"),
    (lambda maps: maps.sigmoid().round(), "the gradient of Net.forward is 0 everywhere"),
    (
        lambda maps: torch.ones(len(maps), 4, 4, requires_grad=True) * maps.detach().mean(),
        "depends on no parameter that trains",
    ),
    (lambda maps: maps / maps.max(), "depends on the other images in its batch"),
    (lambda maps: maps + torch.rand_like(maps), "gives another map each time in evaluation mode"),
]


@pytest.mark.parametrize(("change", "line"), MAPS)
def test_names_the_fault_of_a_map(change: Any, line: str) -> None:
    with pytest.raises(DetectorError, match=re.escape(line)):
        MeDSWrapper(broken(change))


def upsampled(self: nn.Module, images: Tensor) -> Tensor:
    maps = BareDetector.forward(self, images)  # type: ignore[arg-type]
    return maps if self.training else nn.functional.interpolate(maps, scale_factor=4)


def batch_statistics(self: BareDetector, images: Tensor) -> Tensor:
    found = self.squeeze(images)
    found = (found - found.mean((0, 2, 3), keepdim=True)) / found.std((0, 2, 3), keepdim=True)
    return nn.functional.avg_pool2d((self.expand(found) - images).square().mean(1), 4)


METHODS: list[tuple[dict[str, Any], str]] = [
    ({"forward": nn.Module.forward}, "Net has no forward: write forward(images)"),
    ({"forward": upsampled}, "16 x 16 in training mode but 64 x 64 in evaluation mode"),
    ({"forward": batch_statistics}, "the map of an image by Net.forward depends on the other"),
    ({"parameter_groups": lambda self: None}, "Net.parameter_groups must return a list"),
    ({"loss": lambda self, images: 0}, "Net.loss must take (encoded, *, step, total_steps)"),
    (
        {"loss": lambda self, images, *, step, total_steps: self(images)},
        "Net.loss must return a scalar; it returned (2, 1, 16, 16) of torch.float32",
    ),
    (
        {"loss": lambda self, images, *, step, total_steps: self(images).mean().item()},
        "Net.loss must return one tensor; it returned a float",
    ),
    (
        {"loss": lambda self, images, *, step, total_steps: self(images).detach().mean()},
        "Net.loss returned a loss without gradient",
    ),
    (
        {"loss": lambda self, images, *, step, total_steps: self(images).mean() * (1 / step)},
        "Net.loss failed on two images: ZeroDivisionError",
    ),
    ({"auxiliary_loss": lambda self: torch.zeros(2)}, "Net.auxiliary_loss must return a scalar"),
    (
        {"auxiliary_loss": lambda self: torch.tensor(torch.nan)},
        "Net.auxiliary_loss returned values",
    ),
    (
        {"features": lambda self, images: self.squeeze(images)},
        "Net.features uses squeeze.weight, which trains: memory features must be frozen",
    ),
    (
        {"features": lambda self, images: torch.ones(2, 17, 8)},
        "got (2, 17, 8) for images of 64 x 64; leave out class and register tokens",
    ),
    (
        {"features": lambda self, images: torch.ones(2, 17)},
        "Net.features must return floating-point patch features [B, P, D] or [B, D, h, w]",
    ),
    (
        {"features": lambda self, images: [images]},
        "Net.features must return one tensor; it returned",
    ),
    (
        {"image_score": lambda self, maps: maps.amax()},
        "Net.image_score must return one score per image",
    ),
    (
        {"image_score": lambda self, maps: maps.mean((1, 2)) / 0},
        "Net.image_score returned values",
    ),
    ({"parameter_groups": lambda self: []}, "Net has no trainable parameter"),
    (
        {"parameter_groups": lambda self: list(self.parameters())},
        "Net.parameter_groups must return dicts as the optimiser takes them",
    ),
    (
        {"parameter_groups": lambda self: 2 * [{"params": [*self.parameters()]}]},
        "Net.parameter_groups gives squeeze.weight twice",
    ),
    (
        {"parameter_groups": lambda self: [{"params": nn.Linear(1, 1).parameters()}]},
        "Net.parameter_groups gives a tensor (1, 1) that is no parameter of Net",
    ),
    ({"image_size": "large"}, "Net.image_size must be a side or a pair (H, W) in pixels"),
    ({"image_size": 30}, "RuntimeError"),
]


@pytest.mark.parametrize(("methods", "line"), METHODS)
def test_names_the_method_and_its_fault(methods: dict[str, Any], line: str) -> None:
    with pytest.raises(DetectorError, match=re.escape(line)):
        MeDSWrapper(having(**methods))


ENCODED: list[tuple[dict[str, Any], str]] = [
    (
        {"encode": lambda self, images: [images]},
        "Net.encode must return one tensor; it returned a list",
    ),
    (
        {"encode": lambda self, images: self.encoder(images).mean((0, 2, 3))},
        "Net.encode must return one tensor with the images along its first axis",
    ),
    (
        {"encode": lambda self, images: self.head(self.encoder(images))},
        "Net.encode uses head.weight, which trains, but encode runs once per image",
    ),
    (
        {"encode": lambda self, images: self.encoder(images).squeeze()[: len(images)]},
        "Net.encode returned (1, 16, 16) for a batch of one image",
    ),
    (
        {"encode_and_features": lambda self, images: self.encode(images)},
        "Net.encode_and_features must return a tuple of two tensors, what encode and features",
    ),
    (
        {"encode_and_features": lambda self, x: (self.encode(x), self.features(x)[:, 1:])},
        "Net.encode_and_features returned (2, 255, 8) where features returned (2, 256, 8)",
    ),
    (
        {"encode_and_features": lambda self, x: (self.encode(x) + 0.1, self.features(x))},
        "or other values: it must return exactly the same",
    ),
    ({"encode": None}, "(it was given the images, because there is no encode)"),
]


@pytest.mark.parametrize(("methods", "line"), ENCODED)
def test_names_the_fault_of_a_frozen_part(methods: dict[str, Any], line: str) -> None:
    with pytest.raises(DetectorError, match=re.escape(line)):
        MeDSWrapper(having(FullDetector, **methods))


def test_frozen_parameters_in_a_group_are_named() -> None:
    with pytest.raises(DetectorError, match=r"gives head\.weight, which is frozen: leave it out"):
        MeDSWrapper(Frozen())


def test_nothing_to_train_is_named() -> None:
    frozen = BareDetector().requires_grad_(requires_grad=False)
    with pytest.raises(DetectorError, match="BareDetector has no trainable parameter"):
        MeDSWrapper(frozen)


@pytest.mark.parametrize(
    ("detector", "line"),
    [
        (BareDetector, r"the detector is a class: pass an instance, BareDetector\(\)"),
        (lambda images: images.mean(1), "must be a torch.nn.Module .* got a function"),
        (None, "got None"),
    ],
)
def test_what_is_no_module_is_named(detector: Any, line: str) -> None:
    with pytest.raises(DetectorError, match=line):
        MeDSWrapper(detector)


def test_the_lines_are_lines_for_users_who_mistyped() -> None:
    with pytest.raises(UserError) as caught:
        MeDSWrapper(Sized())
    assert isinstance(caught.value, (TypeError, ValueError))
    assert "\n" not in str(caught.value)


def test_an_unusual_image_size_can_be_given_in_two_ways() -> None:
    with pytest.raises(DetectorError, match=r"so with every usual size .* attribute image_size .*"):
        MeDSWrapper(Sized())
    MeDSWrapper(Sized(), example=torch.randn(2, 3, 96, 96))
    for size in (96, (96, 96), [96, 96]):
        MeDSWrapper(having(Sized, image_size=size))


@pytest.mark.parametrize(
    ("example", "line"),
    [
        (torch.zeros(2, 3, 96, 96, dtype=torch.int64), "example must be a floating-point tensor"),
        (torch.zeros(1, 3, 96, 96), r"example must be images \[2, 3, H, W\], got \(1, 3, 96, 96\)"),
    ],
)
def test_examples_are_images(example: Tensor, line: str) -> None:
    with pytest.raises(DetectorError, match=line):
        MeDSWrapper(Sized(), example=example)


def test_lazy_layers_are_named() -> None:
    net = nn.Sequential(nn.LazyConv2d(4, 4, stride=4))
    with pytest.raises(DetectorError, match="lazy layers"):
        MeDSWrapper(net)


def test_a_given_memory_encoder_is_tried_too() -> None:
    with pytest.raises(DetectorError, match=r"MeDSWrapper\(features=\.\.\.\): features must be"):
        MeDSWrapper(BareDetector(), features=nn.Flatten(2))


class Restless(BareDetector):
    """Changes all that a module can change when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.codes = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.plain = torch.zeros(2)
        self.calls = 0
        self.seen: list[int] = []
        self.named: dict[str, Tensor] = {}
        self.last: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        self.codes.data += 1
        self.get_buffer("count").add_(1)
        self.plain.add_(1)
        self.calls += 1
        self.seen.append(len(images))
        random.random()  # noqa: S311
        np.random.rand()  # noqa: NPY002
        torch.rand(1)
        self.last = self.norm(images)
        self.named["last"] = self.last
        return super().forward(self.last)


def test_the_check_leaves_no_trace() -> None:
    net = Restless()
    net.norm.eval()
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    modes = [part.training for part in net.modules()]
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002, S311
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    validate_detector(DetectorView(net, default_features), frozen=())
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected  # noqa: NPY002, S311
    for key, value in net.state_dict().items():
        assert torch.equal(value, state[key]), key
    for parameter in net.parameters():
        assert parameter.grad is None or bool((parameter.grad == 1).all())
    assert [part.training for part in net.modules()] == modes
    assert torch.equal(net.plain, torch.zeros(2))
    assert (net.calls, net.seen, net.named, net.last) == (0, [], {}, None)


def test_nor_does_one_that_fails() -> None:
    class Failing(Restless):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).detach()

    net = Failing()
    before = net.norm.running_mean
    assert before is not None
    with pytest.raises(DetectorError):
        MeDSWrapper(net)
    assert net.seen == []
    assert torch.equal(before, torch.zeros(3))


def test_the_default_encoder_is_not_built_for_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(*args: object, **kwargs: object) -> None:
        pytest.fail("the default encoder was built")

    monkeypatch.setattr("meds_plugin.encoders.default.build_encoder", built)
    MeDSWrapper(BareDetector())


def test_wrapping_without_gradients_switched_on_works() -> None:
    with torch.no_grad():
        MeDSWrapper(BareDetector())
    net = BareDetector()
    with torch.inference_mode():
        MeDSWrapper(net)
