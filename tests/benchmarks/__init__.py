"""Speed measurements, run by hand: ``python -m tests.benchmarks.NAME``; never part of the tests."""
