"""What is sent, kind by kind, and where to."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..hosts.driver import Job
from ..hosts.standins.a1111 import A1111
from ..hosts.standins.forge import Forge, Neo
from ..hosts.standins.ldm_patched import Classic, ReForge
from .grammar import Grammar
from .sentences import NoAnswer
from .standin import Bench, bench

HOSTS = (A1111, Forge, Neo, ReForge, Classic)

PLAIN_NAME = "abcdefghijklmnopqrstuvwxyzäöü0123456789 .,_-()"
"""Signs of names that every tag can hold."""


def tag(draw: Grammar, bench: Bench) -> str:
    if draw.often(0.15):
        return bench.picture(Job(f"a cat {draw.sound_tag()}", steps=draw.whole(1, 3)), sound=True)
    stop = (draw.one(("interrupted", "skipped")), draw.whole(0, 2)) if draw.often(0.1) else None
    job = Job(
        draw.prompt(),
        hr_prompt=draw.one((draw.prompt(), "", "a cat")) if not stop and draw.often(0.15) else None,
        batch_size=draw.one((1, 1, 1, 2)),
        n_iter=1 if stop else draw.one((1, 1, 1, 2)),
        img2img=draw.often(0.1),
        steps=draw.whole(1, 4),
        sampler=draw.one(("Euler", "Heun")),
        stop=stop,
        negative_prompt=draw.prompt() if draw.often(0.1) else "",
    )
    return bench.picture(job, stops=draw.often(0.1))


def panel(draw: Grammar, bench: Bench) -> str:
    prompt = draw.prompt() if draw.often(0.2) else "a cat"
    hires = draw.one(("", "a dog")) if draw.often(0.1) else None
    return bench.picture(Job(prompt, panel=draw.panel(), hr_prompt=hires), stops=draw.often(0.1))


def rest(draw: Grammar, bench: Bench) -> str:
    route = draw.one(("fuse", "inspect"))
    return bench.post(route, draw.body(route))


def name(draw: Grammar, bench: Bench) -> str:
    """A name for a LoRA in the list, in a tag, in the panel, in a request, and for a new file."""
    found = draw.file_name()
    if draw.often(0.4):
        return "new file: " + bench.post("fuse", draw.request(output=found))
    with bench.listed(found) as there:
        if there:
            bench.check_list(found)
        sound = there and found.strip(". ") == found and set(found.lower()) <= set(PLAIN_NAME)
        sound = sound and found.lower() not in ("none", "addams", "my alias")
        if draw.often(0.3):
            return "listed: " + bench.post("inspect", draw.request(content=found))
        tags = (f"<nplora:{found}:vangogh>", f"<lora:vangogh:1:role=style> <lora:{found}:1:role=content>")
        job = draw.one((*(Job(f"a cat {one}") for one in tags), Job("a cat", panel=[True, found, "vangogh"])))
        return "listed: " + bench.picture(job, sound)


KINDS: dict[str, Callable[[Grammar, Bench], str]] = {"tags": tag, "panel": panel, "rest": rest, "names": name}


@dataclass(frozen=True)
class Failure:
    """What was no answer.

    number
        With kind and seed, draws the same again.
    """

    kind: str
    number: int
    host: str
    why: str


@dataclass
class Soaked:
    """What became of it all.

    answers
        (kind, answer) -> how often.
    slowest
        Kind -> most seconds of a core that an answer took, and its number.
    """

    answers: Counter[tuple[str, str]]
    slowest: dict[str, tuple[float, int]]
    failures: list[Failure]


def soak(count: int, seed: int, kinds: tuple[str, ...] = tuple(KINDS), only: int | None = None) -> Iterator[Soaked]:
    """Sends `count` of each kind, in turns to each stand-in. Yields after each what has become of it all so far.

    only
        The number of the one that is to be sent.
    """
    done = Soaked(Counter(), {}, [])
    for turn, host in enumerate(HOSTS):
        numbers = [n for n in (range(turn, count, len(HOSTS)) if only is None else (only,)) if n % len(HOSTS) == turn]
        if not numbers:
            continue
        with ExitStack() as stack:
            made = stack.enter_context(bench(host, Path(stack.enter_context(tempfile.TemporaryDirectory()))))
            for kind in kinds:
                for number in numbers:
                    start = time.process_time()
                    try:
                        answer = KINDS[kind](Grammar(random.Random(f"{seed} {kind} {number}")), made)
                    except NoAnswer as error:
                        answer = "NO ANSWER"
                        done.failures.append(Failure(kind, number, host.__name__, str(error)))
                    seconds = time.process_time() - start
                    done.answers[kind, answer] += 1
                    done.slowest[kind] = max(done.slowest.get(kind, (0.0, 0)), (seconds, number))
                    yield done
