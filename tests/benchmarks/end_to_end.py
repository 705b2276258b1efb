"""Compare a whole run with one that does what the reference does.

Ours is measured whole: encoding, memory scores, distillation, selection, fine-tuning, ranking. Of
the reference's loops (`tests.benchmarks.reference`) a part is measured, as the table says, and
multiplied by how often our run did the same. `python -m tests.benchmarks.end_to_end --output FILE`
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset

from meds_plugin.memory import sample_subsets
from meds_plugin.memory.settings import MemorySettings
from meds_plugin.utils.rng import torch_generator
from meds_plugin.wrapper import MeDSWrapper
from tests.backbones.small import noisy_images
from tests.benchmarks.common import detector_of, machine, measure, options_of, show, write
from tests.benchmarks.reference import ReferenceLoop, memory_loop
from tests.toys import quiet_trainer

if TYPE_CHECKING:
    from argparse import Namespace

    from torch import Tensor

CPU = torch.device("cpu")
SIZES = {
    "categories": (3, "categories"),
    "images": (84, "training images of each; MVTec's smallest category has as many at 40 % noise"),
    "batch": (8, "images of a step"),
    "size": (224, "side of an image in pixels"),
    "depth": (2, "decoder blocks"),
    "width": (128, "of the decoder"),
    "steps": (100, "of each training stage"),
    "memories": (100, "sampled memories of the reference"),
    "loop-images": (2, "images of a category that its memory loop scores"),
    "loop-steps": (5, "steps of each stage that it makes"),
}


class Images(Dataset["Tensor"]):
    """Pictures of several categories."""

    def __init__(self, options: Namespace) -> None:
        count = options.images
        self.images = noisy_images(
            options.categories * count, size=options.size, defective=range(0, count, 5)
        )
        self.groups = [str(index // count) for index in range(len(self.images))]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        """Return one image."""
        return self.images[index]


def main() -> None:
    """Measure, print a table, write figures where asked."""
    options = options_of(__doc__, SIZES)
    data = Images(options)
    own, passes = ours(data, options)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    half, _ = ours(data, options, precision="bf16-mixed")
    parts = theirs(data, options)
    counts = {
        "encoding for the memory": (len(data) / options.batch, "a batch"),
        "memory loop": (options.images * options.categories / options.loop_images, "images"),
        "distillation steps": (options.steps, "steps"),
        "fine-tuning steps": (options.steps, "steps"),
        "selection passes": (passes, "a pass"),
    }
    measured = {
        "memory loop": f"{options.loop_images} images",
        "distillation steps": f"{options.loop_steps} steps",
        "fine-tuning steps": f"{options.loop_steps} steps",
    }
    rows: list[tuple[Any, ...]] = []
    total = 0.0
    for name, (times, unit) in counts.items():
        whole = parts[name] * times
        total += whole
        rows.append((f"reference: {name}", measured.get(name, unit), whole))
    rows += [
        ("reference, total", "extrapolated", total),
        ("ours, float32", "whole", own),
        ("ours, bf16-mixed", "whole", half),
        ("ours, float32, peak memory of the process in GB", "", memory),
        ("ratio, float32", "", total / own),
        ("ratio, bf16-mixed", "", total / half),
    ]
    show(
        f"Dinomaly on the default encoder, {len(data)} images of {options.size} px, "
        f"{options.steps} + {options.steps} steps, {options.memories} memories, CPU seconds",
        ("", "measured", "seconds"),
        rows,
    )
    report = {**vars(options), "output": None, "machine": machine(CPU), "passes": passes}
    figures = {"ours": own, "ours_bf16": half, "reference": parts, "reference_total": total}
    figures["peak_gigabytes"] = memory
    write({**report, **figures, "ratio": total / own, "ratio_bf16": total / half}, options.output)


def ours(
    data: Images, options: Namespace, *, precision: Literal["32-true", "bf16-mixed"] = "32-true"
) -> tuple[float, int]:
    """Return the seconds of a run and how often it scored all images."""
    products: Literal["float32", "bfloat16"] = "float32" if precision == "32-true" else "bfloat16"
    model = MeDSWrapper(
        detector_of(options),
        distill_steps=options.steps,
        finetune_steps=options.steps,
        memory=MemorySettings(products=products),
    )
    trainer = quiet_trainer(model.total_steps, precision=precision)

    def run() -> None:
        trainer.fit(model, DataLoader(data, batch_size=options.batch))
        model.training_scores()

    seconds, _ = measure(run, CPU)
    if model.selection is None:
        raise RuntimeError
    # The first selection goes by the distilled model's scores; the last one is the ranking's.
    return seconds, len({row["step"] for row in model.selection.history})


def theirs(data: Images, options: Namespace) -> dict[str, float]:
    """Return the seconds of the reference's parts; of loops, those of one step or of the sample."""
    loop = ReferenceLoop(detector_of(options), batch=options.batch)
    batch = data.images[: options.batch]
    category = data.images[: options.images]
    encoding, features = measure(lambda: loop.features(category), CPU)
    sample = torch.arange(options.loop_images)
    generator = torch_generator(0, "memory", "")
    subsets = sample_subsets(len(features), 0.1, options.memories, generator=generator)
    scoring, maps = measure(lambda: memory_loop(features, subsets, sample), CPU)
    targets = maps[:1].repeat(len(batch), 1).view(len(batch), *loop.detector.encoder.grid)
    steps: dict[str, list[float]] = {"distill": [], "finetune": []}
    for _ in range(options.loop_steps + 1):
        steps["distill"].append(measure(lambda: loop.distill(batch, targets), CPU)[0])
        steps["finetune"].append(measure(lambda: loop.finetune(batch), CPU)[0])
    # The first step of each makes the optimiser's state.
    distill, finetune = (sum(seconds[1:]) / options.loop_steps for seconds in steps.values())
    return {
        "encoding for the memory": encoding * options.batch / len(category),
        "memory loop": scoring,
        "distillation steps": distill,
        "fine-tuning steps": finetune,
        "selection passes": measure(lambda: loop.score(data.images), CPU)[0],
    }


if __name__ == "__main__":
    main()
