"""Tests of the review page and of the way back from it."""
