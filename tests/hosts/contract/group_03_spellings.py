"""3: the ways to write a tag, and other tags beside it."""

from __future__ import annotations

import pytest

from ...reference.kohya import factors, fused
from ...reference.matrices import added
from .loras import HARD


class Spellings:
    @pytest.mark.parametrize(
        "prompt",
        [
            "a cat <lora:hat:0.5> <nplora:dog:vangogh:0.5>",
            "a cat <nplora:dog:vangogh:0.5> <lora:hat:0.5>",
            "<lora:hat:0.5> a cat <lora:dog:1:role=content> <lora:vangogh:1:role=style:mu=0.5>",
            "a cat <lora:vangogh:1:role=style> <lora:hat:0.5> <lora:dog:1:role=content:mu=0.5>",
        ],
    )
    def test_3_ordinary_tags_work_beside_it(self, driver, loras, prompt):
        driver.generate(prompt)
        expected = fused(loras.dog, loras.vangogh, 0.5)
        for name, (up, down) in factors(loras.hat).items():
            expected[name] = added(expected[name], (0.5 * up, down))
        found = driver.compare(expected)
        assert found.worst < 1e-4
        assert found.outside == 0

    def test_3_a_lora_that_is_added_twice_is_said_to_be(self, driver, loras):
        twice = "'{}' has an ordinary <lora:...> tag, too, so it is added twice"
        said = " ".join(driver.generate("a cat <nplora:file_0007:vangogh:1> <lora:My Alias:1> <lora:hat:1>").comments)
        assert twice.format("My Alias") in said
        assert twice.format("hat") not in said
        roles = "<lora:dog:1:role=content> <lora:vangogh:1:role=style>"
        assert "twice" not in " ".join(driver.generate(f"a cat {roles}").comments)

    def test_3_a_lora_with_our_name_is_the_users(self, driver, loras):
        driver.generate("a cat <lora:nplora dog x vangogh:1>")
        assert driver.compare(factors(loras.namesake)).worst < 1e-4

    def test_3_roles_take_the_weights_of_their_tags(self, driver, loras):
        driver.generate("a cat <lora:dog:0.7:role=content:mu=2> <lora:vangogh:0.4:role=style>")
        assert driver.compare(fused(loras.dog, loras.vangogh, 2, c=0.7, s=0.4)).worst < 1e-4

    def test_3_odd_names_and_aliases(self, driver, loras):
        driver.generate("a cat <nplora:Van Gogh, v1.5 (röt):My Alias:1>")
        assert driver.compare(fused(loras.odd, loras.aliased, 1)).worst < 1e-4
        driver.generate("a cat <nplora:Van Gogh, v1.5 (röt):file_0007:1>")
        assert driver.compare(fused(loras.odd, loras.aliased, 1)).worst < 1e-4

    def test_3_two_fusions_add_up(self, driver, loras):
        driver.generate("a cat <nplora:dog:vangogh:0.5> <nplora:hat:vangogh:hard:s=0>")
        first, second = fused(loras.dog, loras.vangogh, 0.5), fused(loras.hat, loras.vangogh, HARD, s=0)
        assert driver.compare({name: added(first[name], second[name]) for name in first}).worst < 1e-4

    def test_3_layers_of_one_lora_only_are_added_as_they_are(self, driver, loras):
        picture = driver.generate("a cat <nplora:first:second:hard>")
        assert driver.compare(fused(loras.first_half, loras.second_half, HARD)).worst < 1e-4
        (comment,) = picture.comments
        assert "share no layer" in comment
