"""13: the other methods."""

from __future__ import annotations

import numpy as np
import pytest

from lib_nplora.methods.table import methods

from ...reference import error
from ...reference.kohya import deltas, factors, fused, output_side
from ...reference.sparse import mask, ties
from .loras import HARD


class Methods:
    def test_13_hard_reverse_and_the_output_side(self, driver, loras):
        for tag, expected in (
            ("<nplora:dog:vangogh:method=hard>", fused(loras.dog, loras.vangogh, HARD)),
            ("<nplora:dog:vangogh:2:method=reverse>", fused(loras.vangogh, loras.dog, 2)),
            ("<nplora:dog:vangogh:2:method=uspace>", output_side(loras.dog, loras.vangogh, 2)),
        ):
            driver.generate(f"a cat {tag}")
            found = driver.compare(expected)
            assert found.worst < 1e-4, tag
            assert found.outside == 0

    @pytest.mark.parametrize("density", [None, 0.5])
    def test_13_ties(self, driver, loras, density):
        contents, styles = deltas(loras.small_content), deltas(loras.small_style)
        option = "" if density is None else f":density={density}"
        driver.generate(f"a cat <nplora:small content:small style:method=ties{option}:c=0.8>")
        for name, content in contents.items():
            expected = ties(0.8 * content, styles[name], density or 0.2)
            known = np.isfinite(expected)
            assert known.mean() > 0.99
            assert error(driver.delta(name)[known], expected[known]) < 1e-4, name
        assert driver.compare(factors(loras.small_content)).outside == 0

    def test_13_dare(self, driver, loras):
        """Its seed stands for the masks."""
        contents, styles = deltas(loras.small_content), deltas(loras.small_style)
        for seed in (0, 7):
            tag = f"<nplora:small content:small style:method=dare:density=0.4:seed={seed}>"
            assert f"NP-LoRA random seed: {seed}" in driver.generate(f"a cat {tag}").infotext
            for name, content in contents.items():
                masks = [mask(content.shape, 0.4, seed, place) for place in (0, 1)]
                assert {0.0, 2.5} == set(np.unique(masks).round(5))
                expected = content * masks[0] + styles[name] * masks[1]
                assert error(driver.delta(name), expected) < 1e-4, (seed, name)
        assert driver.compare(factors(loras.small_content)).outside == 0
        assert "random seed" not in driver.generate("a cat <nplora:small content:small style:method=ties>").infotext

    def test_13_blocks_of_another_model_are_refused(self, driver, loras, plain):
        picture = driver.generate("a cat <nplora:dog:vangogh:method=blora>")
        (comment,) = picture.comments
        assert "takes the content from one block of SDXL, and 'dog' has no layer there" in comment
        assert picture.pixels == plain

    def test_13_each_method_comes_and_goes(self, driver, loras, plain):
        pixels = {}
        for method in methods():
            tag = f"<nplora:small content:small style:method={method}>"
            pixels[method] = driver.generate(f"a cat {tag}").pixels
            assert driver.generate("a cat").pixels == plain, method
        assert driver.compare({}).outside == 0
        assert pixels.pop("blora") == pixels.pop("rar") == plain
        assert plain not in pixels.values()
