"""8: infotext."""

from __future__ import annotations

import pytest

from .pictures import lora_hashes


class Infotext:
    @pytest.mark.parametrize(
        "tags",
        [
            "<nplora:dog:vangogh:0.5:c=0.8>",
            "<lora:dog:0.8:role=content> <lora:vangogh:1:role=style:mu=0.5>",
        ],
    )
    def test_8_the_infotext_holds_the_tag_and_both_hashes(self, driver, loras, tags):
        picture = driver.generate(f"a cat {tags}")
        assert f"a cat {tags}" in picture.infotext
        assert set(lora_hashes(picture)) == {"dog", "vangogh"}
        assert lora_hashes(picture) == lora_hashes(driver.generate("a cat <lora:dog:1> <lora:vangogh:1>"))

    def test_8_nothing_of_ours_stands_in_other_pictures(self, driver, loras):
        infotext = driver.generate("a cat").infotext
        assert "nplora" not in infotext.lower()
        assert "Lora hashes" not in infotext
