"""3: every kind of LoRA that the host reads."""

from __future__ import annotations

import numpy as np
import pytest

from ...reference import error
from ...reference.kohya import factors
from ...reference.np_lora import inside
from .. import formats
from .layers import sample
from .loras import KINDS


class Kinds:
    @pytest.mark.parametrize("kind", KINDS)
    def test_3_any_kind_is_what_the_host_makes_of_it(self, driver, loras, kind):
        """As content and as style. The host's tags in the order in which each LoRA meets the original weights."""
        if kind not in driver.kinds:
            (comment,) = driver.generate(f"a cat <nplora:{kind}:vangogh:1>").comments
            assert "in a format that this WebUI does not read" in comment
            return
        names = [m.name for m in (driver.norms if kind == "norm" else sample(driver))]
        partner = {name: up @ down for name, (up, down) in factors(loras.vangogh).items() if name in names}

        def measured(tags: str) -> dict[tuple[str, str], np.ndarray]:
            picture = driver.generate(f"a cat {tags}")
            expected = ("hardly overlap", "of all directions", "norms and biases", "share no layer")
            assert all(any(part in comment for part in expected) for comment in picture.comments), picture.comments
            found = {(name, "weight"): driver.delta(name) for name in names}
            if kind in ("full", "norm"):
                found |= {(name, "bias"): driver.delta(name, "bias") for name in names if formats.has_bias(name)}
            return found

        alone = measured(f"<lora:{kind}:1>")
        both = measured(f"<lora:{kind}:1><lora:vangogh:1>")
        worst = {}
        for role, tag in (("content", f"{kind}:vangogh"), ("style", f"vangogh:{kind}")):
            plain = measured(f"<nplora:{tag}:0>")
            worst[role] = max(error(plain[key], both[key]) for key in both)
            projected = measured(f"<nplora:{tag}:1>")
            for (name, what), own in alone.items():
                other = partner.get(name) if what == "weight" else None
                if other is None or kind == "norm":
                    expected = own
                else:
                    content, style = (own, other) if role == "content" else (other, own)
                    expected = style + content - 0.5 * inside(content, style)
                assert error(projected[name, what], expected) < 1e-4, (role, name, what)
        errors = ", ".join(f"as {role} {error:.1e}" for role, error in worst.items())
        print(f"{kind}: mu=0 against the host's own two tags: {errors}")
        assert max(worst.values()) < 1e-5
