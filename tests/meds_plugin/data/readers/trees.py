"""Trees of tiny images for the readers' tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (6, 4)


def draw(root: Path, *names: str) -> None:
    """Write images; the same ones do not look alike."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE, (len(name), sum(map(ord, name)) % 256, 0)).save(path)


def mark(root: Path, name: str, *places: tuple[int, int], value: int = 255) -> None:
    """Write a mask with a pixel set at each place (x, y)."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", SIZE)
    for place in places:
        mask.putpixel(place, value)
    mask.save(path)
