"""10: plots."""

from __future__ import annotations

from ..driver import write_lora


class Plots:
    def test_10_each_cell_is_its_tag(self, driver, loras):
        mus, methods = ("0", "0.1", "0.5", "1", "10", "hard"), ("np", "direct")
        cells = driver.sweep(
            "a cat", [("[NP-LoRA] mu", mus), ("[NP-LoRA] method", methods)], panel=[True, "dog", "vangogh"]
        )
        tags = [f"<nplora:dog:vangogh:{mu if method == 'np' else 'method=direct'}>" for method in methods for mu in mus]
        assert len(cells) == len(tags)
        for cell, tag in zip(cells, tags):
            assert cell.infotext.startswith(f"a cat {tag}\n"), cell.infotext
            assert cell.pixels == driver.generate(f"a cat {tag}").pixels, tag

    def test_10_a_plot_varies_the_tag_of_the_prompt(self, driver, loras):
        cells = driver.sweep(
            "a <nplora:dog:vangogh:2> cat",
            [("[NP-LoRA] content weight", ("0.5", "1")), ("[NP-LoRA] style", ("vangogh", "tucker"))],
        )
        tags = [f"<nplora:dog:{style}:2{c}>" for style in ("vangogh", "tucker") for c in (":c=0.5", "")]
        for cell, tag in zip(cells, tags, strict=True):
            assert cell.infotext.startswith(f"a {tag} cat\n")
            assert cell.pixels == driver.generate(f"a {tag} cat").pixels, tag

    def test_10_a_sweep_of_mu_reads_and_decomposes_once(self, driver, loras):
        """Whatever axis the pair stands on: mu is varied innermost."""
        pairs = 2
        write_lora(driver.lora_dir / "fresh.safetensors", driver.modules, seed=30, rank=4)
        write_lora(driver.lora_dir / "fresh style.safetensors", driver.modules, seed=31, rank=4)
        write_lora(driver.lora_dir / "fresh style 2.safetensors", driver.modules, seed=32, rank=4)
        before = dict(driver.counts())
        driver.sweep(
            "a cat <nplora:fresh:fresh style:1>",
            [
                ("[NP-LoRA] style", ("fresh style", "fresh style 2")),
                ("[NP-LoRA] mu", ("0", "0.1", "0.5", "1", "10", "hard")),
            ],
        )
        counts = {name: driver.counts()[name] - before.get(name, 0) for name in ("loads", "decompositions")}
        assert counts == {"loads": 1 + pairs, "decompositions": pairs * len(driver.modules)}

    def test_10_a_plot_without_a_fusion_changes_nothing(self, driver, loras, plain):
        for cell in driver.sweep("a cat", [("[NP-LoRA] mu", ("0", "1"))]):
            assert cell.pixels == plain
