"""Finds the images of a data set: a module for each layout, and what they share."""

from meds_plugin.data.readers.csv_dataset import read_csv
from meds_plugin.data.readers.elpv import read_elpv
from meds_plugin.data.readers.folder import read_folder
from meds_plugin.data.readers.mvtec import read_mvtec
from meds_plugin.data.readers.real_iad import read_real_iad
from meds_plugin.data.readers.visa import read_visa

__all__ = ["read_csv", "read_elpv", "read_folder", "read_mvtec", "read_real_iad", "read_visa"]
