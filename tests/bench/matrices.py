"""Times what a LoRA without factors costs at one layer, against adding one LoRA to it, in one run.

Added: W += up @ down of rank 32. Factors sought: in a matrix that has none, as each one is once when its file is read.
Decomposed: as a style is, once, from factors and from a matrix. Projected: as a content is, at each change of mu.
"""

from __future__ import annotations

import argparse
from statistics import median

import torch

from lib_nplora.maths.dense import DenseDelta
from lib_nplora.maths.lowrank import LowRankDelta, exact_math
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.maths.subspace import project_out, right_svd

from .__main__ import timed

RANK = 32


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.matrices", description=__doc__)
    parser.add_argument("--out", type=int, default=1280)
    parser.add_argument("--in", dest="in_", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=5, help="rounds, after one to warm up (default: 5)")
    args = parser.parse_args()
    torch.set_num_threads(1)

    weight = torch.randn(args.out, args.in_)
    matrix = DenseDelta.of(torch.randn(args.out, args.in_))
    factors = LowRankDelta(torch.randn(args.out, RANK), torch.randn(RANK, args.in_))
    basis = right_svd([factors]).basis(RankRule())
    work = {
        "added": lambda: weight.addmm_(factors.up, factors.down),
        "factors sought": matrix.factored,
        "decomposed from factors": lambda: right_svd([factors]),
        "decomposed from a matrix": lambda: right_svd([matrix]),
        "projected": lambda: project_out(matrix, basis, 0.5),
    }
    with exact_math():
        rounds = [{name: timed(step)[0] for name, step in work.items()} for _ in range(args.rounds + 1)][1:]
    spent = {name: median(times[name] for times in rounds) for name in work}
    print(f"{args.out} x {args.in_}, {torch.get_num_threads()} threads, median of {args.rounds} rounds")
    for name, seconds in spent.items():
        print(f"{name}: {seconds / spent['added']:.1f} x added")


if __name__ == "__main__":
    main()
