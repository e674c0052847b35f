"""12: methods that change with the steps, beside other pictures, passes and tags."""

from __future__ import annotations

import pytest

from ...reference.kohya import factors, fused, winners
from ...reference.matrices import added
from .loras import KLORA
from .schedules import letters_by_layer, sampler_passes, schedules, updates_by_winner


class StepsBesideOthers:
    def test_12_the_second_picture_is_the_first(self, driver, loras, plain):
        driver.generate("a cat")
        before = driver.fingerprint()
        first = driver.generate(KLORA, steps=6)
        without = driver.generate("a cat", steps=6)
        assert first.pixels != without.pixels
        assert driver.fingerprint() == before
        assert len({first.pixels, driver.generate(KLORA.replace("klora", "klora*"), steps=6).pixels}) == 2
        assert driver.generate(KLORA, steps=6) == first
        assert driver.generate(KLORA, steps=6) == first
        for other in ("<nplora:knight:ink:0.5>", "<nplora:dog:vangogh>", "<lora:knight:1>", "<lora:hat:1>", ""):
            driver.generate(f"a cat {other}")
            assert driver.generate(KLORA, steps=6).pixels == first.pixels, other
        assert driver.generate("a cat").pixels == plain
        assert driver.fingerprint() == before

    def test_12_other_steps_in_between(self, driver, loras, watching):
        """A picture that ended at another winner than it began with leaves nothing for the next."""
        expected = winners(loras.knight, loras.ink, "klora", 6)
        watching(updates_by_winner(loras.knight, loras.ink, expected))
        for steps in (6, 1, 6, 3):
            driver.generate(KLORA, steps=steps)
            assert schedules(driver.seen(), steps) == [winners(loras.knight, loras.ink, "klora", steps)]

    @pytest.mark.parametrize("other", ["a cat <lora:hat:1>", "a cat <nplora:dog:vangogh>"])
    def test_12_another_hires_prompt_encoded_in_between(self, driver, loras, watching, other):
        """The pass after next may find weights at the last winners, put there under the same names."""
        expected = winners(loras.knight, loras.ink, "klora", 6)
        watching(updates_by_winner(loras.knight, loras.ink, expected))
        driver.generate(KLORA, steps=6)
        driver.generate(KLORA, steps=6, hr_prompt=other)
        first, _ = sampler_passes(driver.seen())
        assert letters_by_layer(first) == expected

    def test_12_what_follows_a_skipped_picture_begins_anew(self, driver, loras, watching):
        expected = winners(loras.knight, loras.ink, "klora", 6)
        watching(updates_by_winner(loras.knight, loras.ink, expected))
        driver.generate(KLORA, steps=6, n_iter=2, stop=("skipped", 3))
        skipped, following = sampler_passes(driver.seen())
        assert letters_by_layer(skipped) == {name: letters[:4] for name, letters in expected.items()}
        assert letters_by_layer(following) == expected

    @pytest.mark.parametrize("how", ["interrupted", "skipped", "fail"])
    def test_12_an_end_in_mid_picture_leaves_nothing(self, driver, loras, plain, how):
        driver.generate("a cat")
        before = driver.fingerprint()
        first = driver.generate(KLORA, steps=6).pixels
        for tag in ("a cat", KLORA):
            for call in (0, 3):
                if how == "fail":
                    with pytest.raises(Exception, match="the test fails here"):
                        driver.generate(KLORA, steps=6, stop=(how, call))
                else:
                    assert driver.generate(KLORA, steps=6, stop=(how, call)).pixels != first
                if tag == KLORA:
                    assert driver.generate(KLORA, steps=6).pixels == first
                assert driver.generate("a cat").pixels == plain
                assert driver.fingerprint() == before

    def test_12_a_checkpoint_switched_after_it(self, driver, loras, plain):
        first = driver.generate(KLORA, steps=6).pixels
        driver.switch_checkpoint()
        try:
            without = driver.generate("a cat").pixels
            assert driver.compare({}).outside == 0
            there = driver.generate(KLORA, steps=6).pixels
            assert there == driver.generate(KLORA, steps=6).pixels != first
            assert driver.generate("a cat").pixels == without
            assert driver.compare({}).outside == 0
        finally:
            driver.switch_checkpoint()
        assert driver.generate("a cat").pixels == plain
        assert driver.generate(KLORA, steps=6).pixels == first

    def test_12_an_ordinary_tag_beside_it(self, driver, loras, watching):
        expected = winners(loras.knight, loras.ink, "klora", 6)
        hat = {name: (0.5 * up, down) for name, (up, down) in factors(loras.hat).items()}
        sides = updates_by_winner(loras.knight, loras.ink, expected)
        watching({side: {n: added(update, hat[n]) for n, update in at.items()} for side, at in sides.items()})
        for prompt in (f"{KLORA} <lora:hat:0.5>", f"<lora:hat:0.5> {KLORA}"):
            driver.generate(prompt, steps=6)
            assert schedules(driver.seen(), 6) == [expected], prompt

    def test_12_two_of_them(self, driver, loras, watching):
        pairs = (loras.knight, loras.ink), (loras.ink, loras.dog)
        one, other = (winners(*pair, "klora", 6) for pair in pairs)
        first, second = (updates_by_winner(*pair, one) for pair in pairs)
        watching({a + b: {n: added(first[a][n], second[b][n]) for n in one} for a in "cs" for b in "cs"})
        driver.generate(f"{KLORA} <nplora:ink:dog:method=klora>", steps=6)
        found = {name: [call.labels[name] for call in driver.seen()] for name in one}
        assert found == {name: [a + b for a, b in zip(one[name], other[name])] for name in one}

    def test_12_beside_another_method(self, driver, loras, watching):
        expected = winners(loras.knight, loras.ink, "klora", 6)
        beside = fused(loras.dog, loras.vangogh, 0.5)
        sides = updates_by_winner(loras.knight, loras.ink, expected)
        watching({side: {n: added(update, beside[n]) for n, update in at.items()} for side, at in sides.items()})
        driver.generate(f"<nplora:dog:vangogh:0.5> {KLORA}", steps=6)
        assert schedules(driver.seen(), 6) == [expected]
