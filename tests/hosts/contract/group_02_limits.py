"""2: the limits of mu."""

from __future__ import annotations

from ...reference.kohya import content_inside_style, factors, fused
from .layers import some_layers


class Limits:
    def test_2_mu_0_is_two_ordinary_tags(self, driver, loras):
        driver.generate("a cat <lora:dog:1><lora:vangogh:1>")
        merged = {name: driver.delta(name) for name in some_layers(driver)}
        driver.generate("a cat <nplora:dog:vangogh:0>")
        for name, expected in merged.items():
            error = ((driver.delta(name) - expected) ** 2).sum() / (expected**2).sum()
            print(name, error**0.5)
            assert error**0.5 < 1e-5, name
        assert driver.compare(fused(loras.dog, loras.vangogh, 0)).worst < 1e-5

    def test_2_direct_is_mu_0_whatever_mu(self, driver, loras):
        driver.generate("a cat <nplora:dog:vangogh:7:method=direct>")
        assert driver.compare(fused(loras.dog, loras.vangogh, 0)).worst < 1e-5

    def test_2_hard_leaves_the_content_nothing_inside_the_style(self, driver, loras):
        driver.generate("a cat <nplora:dog:vangogh:hard>")
        contents, styles = factors(loras.dog), factors(loras.vangogh)
        left = {n: content_inside_style(driver.delta(n), contents[n], styles[n]) for n in some_layers(driver)}
        print("content left inside the style:", max(left.values()))
        assert max(left.values()) < 1e-5, left
