"""Where images come from, and how they are read, contaminated and served."""

from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.images import check_samples, read_image, read_mask
from meds_plugin.data.module import AnomalyDataModule, ManifestRow
from meds_plugin.data.mvtec import read_mvtec
from meds_plugin.data.noise import NoiseReport, contaminate
from meds_plugin.data.samples import Sample, Split
from meds_plugin.data.synthetic import synthetic_split
from meds_plugin.data.transforms import Preprocess

__all__ = [
    "AnomalyDataModule",
    "ImageDataset",
    "ManifestRow",
    "NoiseReport",
    "Preprocess",
    "Sample",
    "Split",
    "check_samples",
    "contaminate",
    "read_image",
    "read_mask",
    "read_mvtec",
    "synthetic_split",
]
