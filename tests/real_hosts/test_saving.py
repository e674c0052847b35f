"""Fusions saved over REST, in real hosts: their weights and pixels against the tag's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ..hosts.contract import Loras
from ..reference.kohya import fused
from .driver import KINDS, running

FORMS = {
    "fp32": ({"dtype": "fp32"}, 1e-4, 1),
    "fp16": ({"dtype": "fp16"}, 2e-3, 4),
    "compressed": ({"dtype": "fp16", "energy": "100%"}, 2e-3, 4),
}
"""Body of the request, worst error of a layer (relative), largest difference of a pixel (of 255)."""


@pytest.mark.parametrize("name", list(KINDS))
def test_a_saved_fusion_gives_the_weights_and_pixels_of_its_tag(name, tmp_path):
    with running(name, tmp_path) as host:
        loras = Loras(host)
        Image.new("RGB", (8, 8)).save(loras.dog.with_suffix(".preview.png"))
        expected = fused(loras.dog, loras.vangogh, 2, c=0.8)
        tag, plain = (host.array(f"a cat {text}") for text in ("<nplora:dog:vangogh:2:c=0.8>", ""))
        assert np.abs(tag - plain).max() > 8
        for form, (body, weights, pixels) in FORMS.items():
            pair = {"content": "dog", "style": "vangogh", "mu": 2, "content_weight": 0.8, "output": form}
            answer = host.call("/nplora/v1/fuse", {**pair, **body})
            assert answer["preview"] == str(host.lora_dir / f"{form}.preview.png")
            saved = host.array(f"a cat <lora:{form}:1>")
            error, difference = host.compare(expected).worst, np.abs(saved - tag).max()
            print(f"{name}, {form}: weights {error:.2e}, pixels {difference}, mean {np.abs(saved - tag).mean():.4f}")
            assert error < weights, form
            assert difference <= pixels, form
