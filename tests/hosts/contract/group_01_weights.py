"""1: every layer holds the fusion."""

from __future__ import annotations

import pytest

from ...reference.kohya import fused
from .loras import HARD


class Weights:
    @pytest.mark.parametrize(
        ("tag", "options"),
        [
            ("<nplora:dog:vangogh>", {"mu": 0.5}),
            ("<nplora:dog:vangogh:0.5>", {"mu": 0.5}),
            ("<nplora:dog:vangogh:hard>", {"mu": HARD}),
            ("<nplora:dog:vangogh:10:c=0.7:s=-1.2>", {"mu": 10, "c": 0.7, "s": -1.2}),
            ("<nplora:dog:vangogh:1:te=0.3:unet=0.8>", {"mu": 1, "te": 0.3, "unet": 0.8}),
            ("<nplora:dog:vangogh:hard:k=2>", {"mu": HARD, "k": 2}),
        ],
    )
    def test_1_every_layer_holds_the_fusion(self, driver, loras, plain, tag, options):
        picture = driver.generate(f"a cat {tag}")
        assert picture.pixels != plain
        found = driver.compare(fused(loras.dog, loras.vangogh, **options))
        assert found.unet < 1e-4
        assert found.te < 1e-4
        assert found.outside == 0

    @pytest.mark.parametrize(
        ("tag", "content", "style"),
        [
            ("<nplora:tucker:vangogh:1>", "tucker", "vangogh"),
            ("<nplora:dog:tucker:1>", "dog", "tucker"),
            ("<nplora:bf16:vangogh:1>", "half_precision", "vangogh"),
        ],
    )
    def test_1_convolutions_with_a_core_and_other_number_formats(self, driver, loras, tag, content, style):
        driver.generate(f"a cat {tag}")
        found = driver.compare(fused(getattr(loras, content), getattr(loras, style), 1))
        assert found.worst < 1e-4
        assert found.outside == 0
