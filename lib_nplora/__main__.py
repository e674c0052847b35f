"""python -m lib_nplora"""

import sys

import torch

from .command_line.main import main

if sys.argv[1:2] not in (["generate"], ["zip"]):
    torch.set_num_threads(1)  # Small matrices: on a busy machine more threads take 10 times as long.
sys.exit(main())
