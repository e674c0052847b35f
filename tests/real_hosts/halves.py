"""What fusions do to weights that a host keeps in fewer bits than float32: the same tests for every model and format.

Hosts add in float32, and round once. To the nearest number of the format, that moves a weight w by at most
eps / 2 * |w|, where eps is the format's (2^-7 in bfloat16, 2^-10 in float16, 2^-3 in float8 e4m3); more exactly by half
the distance of two numbers where w is. At random, up as often as w is near to the number above: then the mean of what
it adds is 0, and its standard deviation sqrt(1 / 6) of that distance; the nearest numbers would make that sqrt(1 / 12).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from ..hosts.contract.loras import GAINS, HARD
from ..hosts.contract.schedules import schedules, standing, updates_by_winner
from ..hosts.driver import write_lora
from ..reference.kohya import fused, winners
from .driver import RealHost, Rounding

ARITHMETIC = 1e-6
"""What float32 may add to the rounding, as a share of a layer's largest weight."""

EPS = 2**-10
"""float16's."""

SAME = 0.2
"""Relative error under which a layer holds a reference, whatever the format: another LoRA's would be above 1."""


class Pair:
    """Two LoRAs of all layers that win some of them at each step by K-LoRA."""

    def __init__(self, host: RealHost, knight: str = "knight", ink: str = "ink", seed: int = 40) -> None:
        self.knight, self.ink = (host.lora_dir / f"{name}.safetensors" for name in (knight, ink))
        if not self.ink.exists():
            write_lora(self.knight, host.modules, seed=seed, rank=8, gains=GAINS)
            write_lora(self.ink, host.modules, seed=seed + 1, rank=6, alpha=4)


@dataclass(frozen=True)
class Format:
    """What the weights are kept in.

    unet, te
        Names of the formats in which a layer calculates with them: float32 where LoRAs are applied at each forward.
    at_random
        Whether the host rounds the UNet's up or down at random, the likelier the nearer.
    roundings
        How often the host rounds to float16 what it multiplies, factors and product, before it adds.
    """

    unet: str
    te: str
    at_random: bool = False
    roundings: int = 0

    def check(self, parts: dict[str, Rounding]) -> None:
        """Every weight is float64's, rounded once, or once more for each time that the host does."""
        for name, part in parts.items():
            print(f"{name}: {part}")
            assert part.dtype == (self.unet if name == "unet" else self.te), name
            if self.at_random and name == "unet":
                assert part.spread == pytest.approx(math.sqrt(1 / 6), rel=0.02), name
                assert abs(part.mean) < 1 / 256, name  # as fine as the host's random numbers are
            elif self.roundings:
                assert part.error < math.hypot(part.ideal, self.roundings**0.5 * EPS / 2), name
            else:
                assert part.beyond_half < ARITHMETIC, name
                assert part.error < 1.01 * part.ideal + ARITHMETIC, name


class Halves:
    """Needs fixtures of class scope: `host`; `pair`, its Pair; `form`, a Format; `size`, that of its pictures."""

    @pytest.fixture(scope="class")
    def pair(self, host) -> Pair:
        return Pair(host)

    @pytest.mark.parametrize(
        ("values", "options"),
        [
            ("0.5", {"mu": 0.5}),
            ("hard:c=0.8:te=0.7", {"mu": HARD, "c": 0.8, "te": 0.7}),
        ],
    )
    def test_fusions_are_float64s_rounded_once(self, host, pair, form, size, values, options):
        host.generate(f"a cat <nplora:knight:ink:{values}>", steps=1, size=size)
        form.check(host.rounding(fused(pair.knight, pair.ink, **options)))

    def test_mu_0_is_spread_as_two_ordinary_tags_are(self, host, pair, form, size):
        """What rounding does to the host's own merge it does to ours: neither more nor another way."""
        expected = fused(pair.knight, pair.ink, 0)
        found = {}
        for tags in ("<lora:knight:1><lora:ink:1>", "<nplora:knight:ink:0>"):
            host.generate(f"a cat {tags}", steps=1, size=size)
            found[tags] = host.rounding(expected)
            form.check(found[tags])
        theirs, ours = found.values()
        for part in theirs:
            if form.roundings:
                assert ours[part].error < 1.01 * theirs[part].error, part
                continue
            if ours[part].dtype != "float32":
                assert ours[part].spread == pytest.approx(theirs[part].spread, rel=0.01), part
            assert ours[part].error == pytest.approx(theirs[part].error, rel=0.01, abs=ARITHMETIC), part

    def test_each_layer_is_its_winners_at_each_step(self, host, pair, form, size):
        expected = winners(pair.knight, pair.ink, "klora", 3)
        assert len(set(expected.values())) >= 3
        host.watch(updates_by_winner(pair.knight, pair.ink, expected))
        picture = host.generate("a cat <nplora:knight:ink:method=klora>", steps=3, size=size)
        host.watch({})
        assert picture.comments == ()
        assert schedules(host.seen(), 3) == [expected]
        form.check(host.rounding(standing(pair, expected)))

    def test_what_a_tag_does_ends_with_it(self, host, pair, size):
        """To the bit."""
        plain = host.generate("a cat", steps=1, size=size)
        before = host.fingerprint()
        assert host.layers_changed() == 0
        for tag in ("<nplora:knight:ink:hard>", "<nplora:knight:ink:method=klora>"):
            assert host.generate(f"a cat {tag}", steps=1, size=size).pixels != plain.pixels
        assert host.layers_changed() > 0
        assert host.generate("a cat", steps=1, size=size).pixels == plain.pixels
        assert host.layers_changed() == 0
        assert host.fingerprint() == before
