"""15: strengths that choose themselves."""

from __future__ import annotations

import pytest

from ...reference.kohya import balanced, fused


class Balance:
    @pytest.mark.parametrize("mode", ["layer", "down", "whole"])
    def test_15_both_sides_are_balanced_in_every_layer(self, driver, loras, mode):
        driver.generate(f"a cat <nplora:dog:vangogh:0.5:balance={mode}>")
        found = driver.compare(balanced(loras.dog, loras.vangogh, mode, 0.5))
        assert found.worst < 1e-4
        assert found.outside == 0

    def test_15_off_is_no_balance(self, driver, loras):
        plain = driver.generate("a cat <nplora:dog:vangogh:0.5>").pixels
        assert driver.generate("a cat <nplora:dog:vangogh:0.5:balance=off>").pixels == plain
        assert driver.compare(fused(loras.dog, loras.vangogh, 0.5)).worst < 1e-4
        assert driver.generate("a cat <nplora:dog:vangogh:0.5:balance=layer>").pixels != plain
