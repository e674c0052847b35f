"""Small matrices: threads cost more than they bring."""

import torch

torch.set_num_threads(1)
