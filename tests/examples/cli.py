"""MeDS by Lightning's own command line: ``python -m tests.examples.cli fit --config FILE``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.cli import LightningCLI

from meds_plugin import AnomalyDataModule, MeDSWrapper
from meds_plugin.data import synthetic_split
from tests.examples.autoencoder import Autoencoder

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Model", "Products", "main"]


class Model(MeDSWrapper):
    """An autoencoder trained by MeDS.

    Args:
        distill_steps: Steps of distillation.
        finetune_steps: Steps of fine-tuning.
    """

    def __init__(self, distill_steps: int = 300, finetune_steps: int = 600) -> None:
        super().__init__(Autoencoder(), distill_steps=distill_steps, finetune_steps=finetune_steps)


class Products(AnomalyDataModule):
    """Made-up products.

    Args:
        categories: Which of them.
        train_normal: Training images of each.
        image_size: Side in pixels.
        batch_size: Images per batch.
    """

    def __init__(
        self,
        categories: list[str],
        train_normal: int = 30,
        image_size: int = 64,
        batch_size: int = 8,
    ) -> None:
        split = synthetic_split(categories=categories, size=image_size, train_normal=train_normal)
        super().__init__(source=split, image_size=image_size, batch_size=batch_size)


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the command line; the trainer's ``max_steps`` are those of the stages."""

    class CLI(LightningCLI):
        def add_arguments_to_parser(self, parser: Any) -> None:
            parser.link_arguments(
                ("model.distill_steps", "model.finetune_steps"),
                "trainer.max_steps",
                compute_fn=lambda first, second: first + second,
            )

    return CLI(Model, Products, args=None if arguments is None else list(arguments))


if __name__ == "__main__":
    main()
