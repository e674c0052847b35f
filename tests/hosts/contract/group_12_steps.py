"""12: methods that change with the steps of a picture."""

from __future__ import annotations

import pytest

from ...reference.kohya import factors, winners
from .loras import KLORA
from .schedules import letters_by_layer, nothing, sampler_passes, schedules, standing, updates_by_winner


class Steps:
    @pytest.mark.parametrize("steps", [6, 30])
    @pytest.mark.parametrize("method", ["klora", "klora*", "fixed"])
    def test_12_each_layer_is_its_winners_at_each_step(self, driver, loras, watching, method, steps):
        expected = winners(loras.knight, loras.ink, method, steps)
        if method != "fixed":
            print(f"{len(expected)} layers:", *sorted(set(expected.values())))
            assert len(set(expected.values())) >= 3
        watching(updates_by_winner(loras.knight, loras.ink, expected))
        picture = driver.generate(f"a cat <nplora:knight:ink:method={method}>", steps=steps)
        assert picture.comments == ()
        assert schedules(driver.seen(), steps) == [expected]
        found = driver.compare(standing(loras, expected))
        assert found.worst < 1e-4
        assert found.outside == 0

    def test_12_weights_and_options_count(self, driver, loras, watching):
        """Louder layers win no more, as gamma weighs that out: but the scale and the strengths are as asked."""
        expected = winners(loras.knight, loras.ink, "klora", 6, alpha=1.0, beta=0.8)
        assert expected != winners(loras.knight, loras.ink, "klora", 6)
        watching(updates_by_winner(loras.knight, loras.ink, expected, c=0.5 * 0.8, s=-1.2 * 0.8))
        driver.generate("a cat <nplora:knight:ink:method=klora:alpha=1:beta=0.8:c=0.5:s=-1.2:unet=0.8>", steps=6)
        assert schedules(driver.seen(), 6) == [expected]

    def test_12_switch_takes_turns_in_all_layers(self, driver, loras, watching):
        """Those that only one of the LoRAs holds take turns with nothing."""
        contents, styles = factors(loras.first_half), factors(loras.ink)
        names = [name for name in styles if name.startswith("lora_unet")]
        watching({"c": {n: contents.get(n, nothing(styles[n])) for n in names}, "s": {n: styles[n] for n in names}})
        driver.generate("a cat <nplora:first:ink:method=switch>", steps=6)
        assert schedules(driver.seen(), 6) == [dict.fromkeys(names, "cscscs")]
        text = {name: update for name, update in styles.items() if name not in names}
        found = driver.compare({**text, **{name: styles[name] for name in names}})
        assert found.worst < 1e-4
        assert found.outside == 0

    def test_12_two_calls_a_step(self, driver, loras, watching):
        expected = winners(loras.knight, loras.ink, "klora", 6)
        watching(updates_by_winner(loras.knight, loras.ink, expected))
        driver.generate(KLORA, steps=6, sampler="Heun")
        calls = driver.seen()
        assert [(call.number, call.planned, call.steps) for call in calls] == [(i, 12, 6) for i in range(11)]
        letters = {name: "".join(2 * letter for letter in won)[:11] for name, won in expected.items()}
        assert letters_by_layer(calls) == letters

    def test_12_hires_has_a_schedule_of_its_own(self, driver, loras, watching):
        expected = winners(loras.knight, loras.ink, "klora", 6)
        watching(updates_by_winner(loras.knight, loras.ink, expected))
        picture = driver.generate(KLORA, steps=6, hr_prompt="")
        assert schedules(driver.seen(), 6) == [expected, expected]
        assert driver.generate(KLORA, steps=6, hr_prompt=KLORA).pixels == picture.pixels

    def test_12_hires_in_one_pass_only(self, driver, loras, watching):
        expected = winners(loras.knight, loras.ink, "klora", 6)
        watching(updates_by_winner(loras.knight, loras.ink, expected, neither=True))
        neither = dict.fromkeys(expected, "-" * 6)
        driver.generate(KLORA, steps=6, hr_prompt="a cat")
        assert schedules(driver.seen(), 6) == [expected, neither]
        driver.generate("a cat", steps=6, hr_prompt=KLORA)
        assert schedules(driver.seen(), 6) == [neither, expected]

    def test_12_img2img_counts_the_steps_that_it_makes(self, driver, loras, watching):
        watching(updates_by_winner(loras.knight, loras.ink, winners(loras.knight, loras.ink, "klora", 1)))
        driver.generate(KLORA, steps=12, img2img=True)
        steps = driver.seen()[0].steps
        assert 6 < steps < 12
        assert schedules(driver.seen(), steps) == [winners(loras.knight, loras.ink, "klora", steps)]

    def test_12_batches_begin_anew(self, driver, loras, watching):
        expected = winners(loras.knight, loras.ink, "klora", 6)
        watching(updates_by_winner(loras.knight, loras.ink, expected))
        pixels = driver.generate(KLORA, steps=6, batch_size=2, n_iter=2).pixels
        assert schedules(driver.seen(), 6) == [expected, expected]
        assert len(set(pixels)) == 4

    @pytest.mark.parametrize("scripts", ["none", "other"])
    def test_12_an_inner_pass_has_a_schedule_of_its_own(self, driver, loras, watching, scripts):
        watching(updates_by_winner(loras.knight, loras.ink, winners(loras.knight, loras.ink, "klora", 1)))
        inner = driver.generate(KLORA, steps=6, inner=(scripts, KLORA)).inner
        outer, within = sampler_passes(driver.seen())
        assert letters_by_layer(outer) == winners(loras.knight, loras.ink, "klora", 6)
        assert letters_by_layer(within) == winners(loras.knight, loras.ink, "klora", within[0].steps)
        assert inner == driver.generate("a cat", inner=(scripts, KLORA)).inner
