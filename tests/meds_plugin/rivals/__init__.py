"""Tests of `meds_plugin.rivals`."""
