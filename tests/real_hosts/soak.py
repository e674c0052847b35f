"""Random jobs over the API of one real host: what it answers, what it leaves behind, and how its memory grows.

Writes into a folder: `jobs.jsonl`, a line a job; `memory.png`; `verdict.json`, with the exceptions in the log that are
ours, and whether the weights are at the end those of the start, to the bit. NPLORA_FORGE_DIR and the like name the
hosts, NPLORA_CHECKPOINT and NPLORA_CHECKPOINT_2 the checkpoints, as for the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ..hosts.contract import Loras
from ..hosts.driver import Job
from ..soak.grammar import Grammar
from ..soak.sentences import NoAnswer, check
from .driver import KINDS, SD15, RealHost, running

WARM_UP = 100
"""Jobs after which memory is to be flat."""

FLAT = 1.05
"""Ratio of the mean memory of the last tenth of the jobs to that of the first tenth after WARM_UP, at most."""

LOOK_EVERY = 50
"""Jobs between two looks at the weights."""

PLAIN = Job("a cat", steps=1)


class Soak:
    """The jobs of one host."""

    def __init__(self, host: RealHost, seed: int, steps: int) -> None:
        self.host = host
        self._seed = seed
        self._steps = steps
        self._switched = False
        Loras(host)
        self._hashes = "Lora hashes" in host.run(Job("a cat <lora:dog:1>", steps=1)).params  # Neo writes none.
        self._first = host.run(PLAIN).pixels, host.fingerprint()
        self._read = len(host.log())

    def job(self, number: int, problems: list[str]) -> dict[str, Any]:
        """Do one. Returns its line, and adds to the problems."""
        draw = Grammar(random.Random(f"{self._seed} real {number}"), surrogates=False)
        kind = draw.one([kind for kind, share in SHARES.items() for _ in range(share)])
        start = time.monotonic()
        try:
            answer: str = getattr(self, kind)(draw)
        except NoAnswer as error:
            answer = "NO ANSWER"
            problems.append(f"job {number}, {kind}: {error}")
        problems += [f"job {number}, {kind}, in the log: {told}" for told in self._ours_in_log()]
        seconds = round(time.monotonic() - start, 2)
        resident = self.host.resident()
        return {"number": number, "kind": kind, "answer": answer, "seconds": seconds, "resident_mib": resident}

    # kinds of job, each with its answer

    def tag(self, draw: Grammar) -> str:
        return self._picture(Job(draw.prompt(), steps=self._steps, img2img=draw.often(0.1)))

    def sound(self, draw: Grammar) -> str:
        return self._picture(Job(f"a cat {draw.sound_tag()}", steps=self._steps), sound=True)

    def turns(self, draw: Grammar) -> str:
        """A picture by a method that changes with the steps."""
        method = draw.one(("klora", "klora*", "fixed", "switch"))
        return self._picture(Job(f"a cat <nplora:knight:ink:method={method}>", steps=3), sound=True)

    def panel(self, draw: Grammar) -> str:
        return self._picture(Job("a cat", panel=draw.panel(), steps=self._steps))

    def interrupted(self, draw: Grammar) -> str:
        stop = draw.one(("interrupted", "skipped", "fail")), draw.whole(0, 1)
        return self._picture(Job(f"a cat {draw.sound_tag()}", steps=3, stop=stop))

    def inspection(self, draw: Grammar) -> str:
        return self._post("inspect", draw.body("inspect"))

    def saving(self, draw: Grammar) -> str:
        before = set(self._files())
        answer = self._post("fuse", draw.body("fuse"))
        for path in set(self._files()) - before:
            answer += ", and as a LoRA: " + self._picture(Job(f"a cat <lora:{path.stem}:1>", steps=self._steps))
            path.unlink()
        return answer

    def switching(self, draw: Grammar) -> str:
        self.host.switch_checkpoint()
        self._switched = not self._switched
        return "switched"

    def plain(self, draw: Grammar) -> str:
        """As if nothing had been before."""
        if not self._switched and self.host.run(PLAIN).pixels != self._first[0]:
            raise NoAnswer("another picture than the first")
        return "the first picture" if not self._switched else "none, another checkpoint is loaded"

    # what the answers are

    def _picture(self, job: Job, sound: bool = False) -> str:
        try:
            picture = self.host.run(job)
        except AssertionError as error:
            told = str(error).splitlines()[0]
            if "a picture of one colour" in told:
                return "a picture of one colour"
            return (
                "an error, as it was to be" if "the test fails here" in told else f"an error of the host: {told[:300]}"
            )
        if sound and self._hashes and "Lora hashes" not in picture.params:
            raise NoAnswer(f"{job.prompt} was refused: {picture.comments}")
        comments = [comment for comment in picture.comments if comment.startswith("NP-LoRA")]
        for comment in comments:
            check(comment, len(job.prompt) + len(repr(job.panel)))
        return "a picture, and a comment" if comments else "a picture"

    def _post(self, route: str, body: bytes) -> str:
        request = urllib.request.Request(
            f"{self.host.url}/nplora/v1/{route}", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=900):
                return "200"
        except urllib.error.HTTPError as error:
            told = error.read().decode()
            if not 400 <= error.code < 500:
                raise NoAnswer(f"{error.code}: {told[:1000]}") from None
            check(json.loads(told)["detail"], len(body))
            return f"{error.code}, with a sentence"

    def _files(self) -> Iterator[Path]:
        return self.host.lora_dir.rglob("*.safetensors")

    def _ours_in_log(self) -> list[str]:
        """Exceptions of ours that the log has gained since this was asked last."""
        log = self.host.log()
        new, self._read = log[self._read :], len(log)
        return exceptions_of_ours(new)

    def look(self) -> dict[str, bool]:
        """Whether the first checkpoint's weights and picture are those of the start, to the bit."""
        if self._switched:
            self.switching(Grammar(random.Random(0)))
        pixels = self.host.run(PLAIN).pixels
        return {"picture": pixels == self._first[0], "weights": self.host.fingerprint() == self._first[1]}


SHARES = {
    "tag": 30,
    "sound": 25,
    "turns": 10,
    "panel": 12,
    "interrupted": 7,
    "inspection": 6,
    "saving": 4,
    "switching": 2,
    "plain": 4,
}
"""Kind of job -> how many of a hundred."""


def exceptions_of_ours(log: str) -> list[str]:
    """Tracebacks that end in our code, and what we say of ourselves that should not happen."""
    found = re.findall(r"Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*.*", log)
    frames = {one: re.findall(r'File "([^"]+)"', one) for one in found}
    ours = [one for one, files in frames.items() if files and "lib_nplora" in files[-1]]
    return [*ours, *re.findall(r".*(?:this should not happen|details are in the console).*", log)]


def verdict(rows: Sequence[dict[str, Any]], left: dict[str, bool], problems: Sequence[str]) -> dict[str, Any]:
    """What the jobs have shown."""
    resident = [row["resident_mib"] for row in rows]
    rest = resident[WARM_UP:]
    tenth = max(len(rest) // 10, 1)
    growth = fmean(rest[-tenth:]) / fmean(rest[:tenth]) if len(rest) > 1 else None
    return {
        "jobs": len(rows),
        "answers": dict(Counter(f"{row['kind']}: {row['answer']}" for row in rows).most_common()),
        "same as at the start": left,
        "resident_mib": {"first": resident[0], "warm": resident[: WARM_UP + 1][-1], "last": resident[-1]},
        "growth after the first hundred": growth,
        "problems": list(problems),
        "passed": all(left.values()) and not problems and (growth is None or growth <= FLAT),
    }


def draw_memory(rows: Sequence[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4))
    axes.plot([row["number"] + 1 for row in rows], [row["resident_mib"] / 1024 for row in rows], linewidth=1)
    axes.axvline(WARM_UP, color="grey", linestyle=":")
    axes.set(xlabel="jobs", ylabel="resident memory, GiB", ylim=(0, None))
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.real_hosts.soak", description=__doc__)
    parser.add_argument("--host", choices=list(KINDS), required=True)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1, help="of most pictures, which are 64 x 64 (default: 1)")
    parser.add_argument("--minutes", type=float, help="begin no job after so many")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    arguments = parser.parse_args()
    needed = KINDS[arguments.host].variable, *SD15
    if missing := [name for name in needed if name not in os.environ]:
        parser.error(f"set {', '.join(missing)}")
    arguments.out.mkdir(parents=True)
    until = time.monotonic() + 60 * (arguments.minutes or float("inf"))
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    with running(arguments.host, arguments.out / "data") as host, (arguments.out / "jobs.jsonl").open("w") as lines:
        soak = Soak(host, arguments.seed, arguments.steps)
        for number in range(arguments.jobs):
            if time.monotonic() > until:
                break
            rows.append(soak.job(number, problems))
            print(json.dumps(rows[-1]), file=lines, flush=True)
            if (number + 1) % LOOK_EVERY == 0 and not all(left := soak.look().values()):
                problems.append(f"after job {number}: not as at the start, {left}")
        said = verdict(rows, soak.look(), problems)
    (arguments.out / "verdict.json").write_text(json.dumps(said, indent=1))
    draw_memory(rows, arguments.out / "memory.png")
    print(json.dumps(said, indent=1))
    return int(not said["passed"])


if __name__ == "__main__":
    sys.exit(main())
