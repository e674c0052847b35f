"""7: no work twice."""

from __future__ import annotations


class NoWorkTwice:
    def test_7_another_mu_reads_and_decomposes_nothing(self, driver, loras):
        driver.generate("a cat <nplora:dog:vangogh:0.5>")
        before = dict(driver.counts())
        driver.generate("a cat <nplora:dog:vangogh:0.6>")
        driver.generate("a cat <nplora:dog:vangogh:hard:c=0.5:k=2>")
        assert dict(driver.counts()) == before
        assert before["loads"] > 0
        assert before["decompositions"] > 0

    def test_7_another_content_decomposes_nothing(self, driver, loras):
        driver.generate("a cat <nplora:dog:vangogh:0.5>")
        before = driver.counts()["decompositions"]
        driver.generate("a cat <nplora:hat:vangogh:0.5>")
        assert driver.counts()["decompositions"] == before
