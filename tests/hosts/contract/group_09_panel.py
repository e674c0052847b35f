"""9: the panel."""

from __future__ import annotations

import pytest


class Panel:
    @pytest.mark.parametrize(
        ("panel", "tag"),
        [
            ([True, "dog", "vangogh"], "<nplora:dog:vangogh:0.5>"),
            (
                [True, "dog", "vangogh", 2, False, 0.8, 1.2, "2", "np", False],
                "<nplora:dog:vangogh:2:c=0.8:s=1.2:te=0:k=2>",
            ),
            ([{"content": "dog", "style": "vangogh", "mu": "hard"}], "<nplora:dog:vangogh:hard>"),
            ([{"content": "dog", "style": "vangogh", "method": "direct"}], "<nplora:dog:vangogh:method=direct>"),
        ],
    )
    def test_9_the_panel_is_its_tag(self, driver, loras, panel, tag):
        typed = driver.generate(f"a cat {tag}")
        picture = driver.generate("a cat", panel=panel)
        assert picture.pixels == typed.pixels
        assert picture.infotext.startswith(f"a cat {tag}\n")
        assert ", NP-LoRA: panel" in picture.infotext
        assert typed.infotext == picture.infotext.replace(", NP-LoRA: panel", "")

    def test_9_the_panel_off_is_not_there(self, driver, loras, plain):
        picture = driver.generate("a cat", panel=[False, "dog", "vangogh", 2])
        assert picture.pixels == plain
        assert picture.infotext == driver.generate("a cat").infotext

    def test_9_the_prompt_wins_over_the_panel(self, driver, loras):
        prompt = "a cat <nplora:dog:vangogh:2>"
        typed = driver.generate(prompt)
        picture = driver.generate(prompt, panel=[True, "dog", "vangogh", 0.1])
        assert picture.pixels == typed.pixels
        assert picture.infotext.startswith(f"{prompt}\n")
        assert ", NP-LoRA: panel" not in picture.infotext
        (comment,) = set(picture.comments) - set(typed.comments)
        assert "the prompt's own tag for this pair is used, not the panel's: <nplora:dog:vangogh:2>" in comment

    def test_9_an_alias_is_the_same_pair(self, driver, loras):
        prompt = "a cat <nplora:My Alias:vangogh:2>"
        assert driver.generate(prompt, panel=[True, "file_0007", "vangogh"]).infotext.startswith(f"{prompt}\n")

    def test_9_the_panel_reaches_every_pass(self, driver, loras):
        panel = [True, "dog", "vangogh", 1]
        tag = "<nplora:dog:vangogh:1>"
        for options in ({"hr_prompt": ""}, {"hr_prompt": "a dog"}, {"batch_size": 2, "n_iter": 2}, {"img2img": True}):
            typed = {**options, **({"hr_prompt": f"a dog {tag}"} if options.get("hr_prompt") else {})}
            # An encoder of pictures may draw from the random state that the picture before left: this one is alike.
            driver.generate(f"a cat {tag}", **typed)
            expected = driver.generate(f"a cat {tag}", **typed).pixels
            assert driver.generate("a cat", panel=panel, **options).pixels == expected, options
        inner = driver.generate("a cat", panel=panel, inner=("none", f"a face {tag}")).inner
        assert inner == driver.generate(f"a cat {tag}", inner=("none", f"a face {tag}")).inner

    @pytest.mark.parametrize(
        ("panel", "reason"),
        [
            ([True, "dog", "vangog"], "Did you mean 'vangogh'?"),
            ([True], "choose a content LoRA and a style LoRA"),
            ([True, "dog", "vangogh", -1], "mu=-1 is negative"),
            ([{"contnet": "dog"}], "Did you mean 'content'?"),
        ],
    )
    def test_9_a_wrong_panel_says_why_and_changes_nothing(self, driver, loras, plain, panel, reason):
        picture = driver.generate("a cat", panel=panel)
        assert picture.pixels == plain
        assert reason in " ".join(picture.comments)
