"""4: what a tag does ends with it."""

from __future__ import annotations

import os
import random

SWITCHES = int(os.environ.get("NPLORA_SWITCHES", "50"))


class Reversibility:
    def test_4_a_b_a_gives_the_same_pixels(self, driver, loras):
        first = driver.generate("a cat <nplora:dog:vangogh:0.5>").pixels
        assert driver.generate("a cat <nplora:dog:vangogh:hard>").pixels != first
        assert driver.generate("a cat <nplora:dog:vangogh:0.5>").pixels == first

    def test_4_removed_is_never_there(self, driver, loras, plain):
        driver.generate("a cat")
        before = driver.fingerprint()
        driver.generate("a cat <nplora:dog:vangogh:0.5>")
        assert driver.fingerprint() != before
        picture = driver.generate("a cat")
        assert picture.pixels == plain
        assert picture.comments == ()
        assert driver.fingerprint() == before

    def test_4_many_switches_leave_no_drift(self, driver, loras, plain):
        prompts = {
            "a cat": plain,
            "a cat <nplora:dog:vangogh:0.5>": None,
            "a cat <nplora:dog:vangogh:hard> <lora:hat:1>": None,
            "a cat <lora:dog:1> <nplora:hat:vangogh:2:k=1>": None,
            "a cat <lora:hat:1>": None,
            "a cat <nplora:dog:nobody>": plain,
        }
        rng = random.Random(0)
        for prompt in rng.choices(list(prompts), k=SWITCHES):
            pixels = driver.generate(prompt).pixels
            assert pixels == (prompts[prompt] or pixels), prompt
            prompts[prompt] = pixels
        driver.generate("a cat")
        assert driver.compare({}).outside == 0
