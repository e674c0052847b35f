"""Times pictures by methods that change with the steps next to pictures by the plain merge, in one run of a real host.

Each method's picture is timed when its pair is prepared and in place, after a short one of the same kind, so that the
layers stand as the picture before has left them. NPLORA_A1111_DIR and the like name the hosts, as for the tests.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from ..hosts.driver import write_lora
from ..real_hosts.driver import KINDS, RealHost, running


def times(host: RealHost, methods: list[str], rounds: int, steps: int, size: int) -> dict[str, list[float]]:
    """Seconds of each picture, by method; the methods take turns."""
    found: dict[str, list[float]] = {method: [] for method in methods}
    for seed, name in enumerate(("content", "style"), 1):
        write_lora(host.lora_dir / f"{name}.safetensors", host.modules, seed=seed, rank=16)
    for turn in range(rounds):
        for method in methods:
            prompt = f"a cat <nplora:content:style:method={method}>"
            host.generate(prompt, steps=4, size=size)
            start = perf_counter()
            host.generate(prompt, steps=steps, size=size)
            found[method].append(perf_counter() - start)
        print(
            f"round {turn + 1}: " + ", ".join(f"{method} {found[method][-1]:.1f} s" for method in methods), flush=True
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pictures", description=__doc__)
    parser.add_argument("host", choices=KINDS)
    parser.add_argument("--methods", default="direct,klora", help="the first is compared with (default: direct,klora)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()
    methods = arguments.methods.split(",")
    with tempfile.TemporaryDirectory() as data, running(arguments.host, Path(data)) as host:
        found = times(host, methods, arguments.rounds, arguments.steps, arguments.size)
    base = found[methods[0]]
    for method in methods[1:]:
        least, middle = min(found[method]) / min(base), median(found[method]) / median(base)
        print(f"{method}: {least:.3f} x {methods[0]} by the fastest, {middle:.3f} x by the median")


if __name__ == "__main__":
    main()
