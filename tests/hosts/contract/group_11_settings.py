"""11: settings."""

from __future__ import annotations

import pytest


class Settings:
    def test_11_a_picture_can_be_refused(self, driver, loras, plain):
        driver.set_option("nplora_on_error", "Stop, without a picture")
        try:
            for prompt, panel in (("a cat <nplora:dog:vangog>", None), ("a cat", [True, "dog"])):
                with pytest.raises(Exception, match="NP-LoRA: "):
                    driver.generate(prompt, panel=panel)
            assert driver.generate("a cat").pixels == plain
        finally:
            driver.set_option("nplora_on_error", "Say so under the picture")
