"""What only a GPU can show: the same results there as on a CPU. ``python -m pytest -m gpu``"""
