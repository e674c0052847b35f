"""Pairs as pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

from lab import gallery
from lab.sheet import GAP
from tests.lab.test_table import loras

__all__ = ["loras"]


def test_each_way_has_its_picture_beside_the_truth(pipe, loras, noise_pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "open_pipeline", lambda base: pipe)
    monkeypatch.setattr(gallery, "pictures", lambda work: noise_pictures)
    output = tmp_path / "gallery.png"
    asked = ["fox/neon", "--work", loras, "--layers", "attention", "--seeds", "0", "0", "--steps", "1", "-o", output]
    monkeypatch.setattr("sys.argv", ["gallery", *map(str, asked)])
    gallery.main()
    sheet = np.asarray(Image.open(output).convert("RGB"), np.int64)
    cells = [sheet[-120 - GAP : -GAP, right - 120 : right] for right in range(sheet.shape[1] - GAP, 120, -120 - GAP)]
    truth, *drawn = (cell[20:100, 20:100] for cell in cells)
    assert len(drawn) == 2 + len(gallery.LABELS)
    assert all(cell.std() > 1 for cell in (truth, *drawn))
    assert len({cell.tobytes() for cell in (truth, *drawn)}) == len(cells)
