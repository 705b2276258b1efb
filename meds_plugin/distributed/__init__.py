"""Distributed jobs: how their processes start, share work and results, and end together."""
