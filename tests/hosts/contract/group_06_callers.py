"""6: other callers than the page."""

from __future__ import annotations

import pytest

from ...reference.kohya import fused


class Callers:
    @pytest.mark.parametrize("scripts", ["none", "other"])
    def test_6_an_inner_pass_gets_the_fusion(self, driver, loras, scripts):
        tag = "a cat <nplora:dog:vangogh:0.5>"
        plain = driver.generate("a cat", inner=(scripts, "a cat")).inner
        if not plain:
            pytest.skip("this WebUI fails at a pass without scripts, whatever its prompt is")
        inner = driver.generate(tag, inner=(scripts, tag)).inner
        assert driver.compare(fused(loras.dog, loras.vangogh, 0.5)).worst < 1e-4
        assert inner == driver.generate("a cat", inner=(scripts, tag)).inner
        without = driver.generate(tag, inner=(scripts, "a cat")).inner
        assert driver.compare({}).outside == 0
        assert inner != without == plain

    def test_6_disable_extra_networks_gets_none(self, driver, loras, plain):
        """With other tags, because the hosts reuse what they encoded for the same ones, their own LoRAs' too."""
        driver.generate("a cat <nplora:dog:vangogh:0.5>")
        picture = driver.generate("a bird <nplora:dog:vangogh:0.6>", disable_extra_networks=True)
        assert driver.compare({}).outside == 0
        assert picture.pixels == driver.generate("a bird").pixels
