"""Sends generated tags, panel arguments, REST bodies and file names to the stand-ins: each must end in an answer."""

from __future__ import annotations

import argparse
import sys

from .kinds import KINDS, Soaked, soak


def table(done: Soaked) -> str:
    rows = [f"| {kind} | {answer} | {count} |" for (kind, answer), count in sorted(done.answers.items())]
    slowest = [f"{kind}: {seconds:.2f} s (number {number})" for kind, (seconds, number) in done.slowest.items()]
    return "\n".join(["| kind | answer | count |", "| --- | --- | ---: |", *rows, "", f"slowest: {', '.join(slowest)}"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="in all, as many of each kind (default: 10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="some of them (default: %(default)s)")
    parser.add_argument("--only", type=int, help="the one of this number alone")
    parser.add_argument("--failures", type=int, default=20, help="how many are printed as they come (default: 20)")
    arguments = parser.parse_args()
    kinds = tuple(arguments.kinds.split(","))
    told = 0
    done = None
    for done in soak(arguments.count // len(kinds), arguments.seed, kinds, arguments.only):
        for failure in done.failures[told : arguments.failures]:
            told_of = f"--- {failure.kind} {failure.number} in {failure.host}: {failure.why}"
            print(told_of.encode("utf-8", "backslashreplace").decode(), flush=True)
        told = len(done.failures)
        if sum(done.answers.values()) % 1000 == 0:
            print(f"{sum(done.answers.values())} so far, {told} without an answer", flush=True)
    if done is None:
        return 0
    print(table(done))
    return int(bool(done.failures))


if __name__ == "__main__":
    sys.exit(main())
