"""One pass gives what the ranking, the alarms and the heatmaps need."""

from __future__ import annotations

import torch

from meds_plugin.detectors.inference import evaluating
from meds_plugin.evaluation.final_pass import final_pass, small_maps
from meds_plugin.evaluation.protocol import EvaluationProtocol, evaluation_maps
from meds_plugin.metrics import image_score
from tests.toys import FullDetector, loader, quiet_trainer, wrap

PROTOCOL = EvaluationProtocol(resize=16, image_top=0.1)


def test_it_agrees_with_the_scores_and_the_evaluation() -> None:
    model = wrap(FullDetector(), distill_steps=4, finetune_steps=4)
    quiet_trainer(model.total_steps).fit(model, loader())
    assert model.stream is not None
    images = model.stream.images
    found = final_pass(
        images,
        top=model.selection_top,
        input_size=(32, 32),
        protocol=PROTOCOL,
        device=model.device,
    )
    assert model.selection is not None
    expected = model.selection.anchored(found.selection)
    assert torch.equal(expected, model.training_scores().score)
    assert torch.equal(expected, model.training_scores(found.selection).score)
    (batch,) = images.batches([range(len(images))])
    with torch.no_grad(), evaluating(model.detector):
        maps = model.view.anomaly_map(images.encoded(batch), category=batch["category"])
    evaluated = evaluation_maps(maps, (32, 32), PROTOCOL)
    torch.testing.assert_close(found.image, image_score(evaluated, top=0.1))
    torch.testing.assert_close(found.peak, evaluated.amax(dim=(1, 2)))
    torch.testing.assert_close(found.median, evaluated.flatten(1).median(dim=1).values)
    torch.testing.assert_close(found.maps, maps)


def test_of_large_maps_the_highest_values_stay() -> None:
    maps = torch.zeros(4, 160, 64)
    maps[2, 7, 9] = 3.0
    small = small_maps(maps)
    assert small.shape == (4, 32, 32)
    assert small[2, 1, 4] == 3.0
    assert small.sum() == 3.0
