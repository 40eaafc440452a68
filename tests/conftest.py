"""Several workers share the cores (pytest-xdist): one thread for each."""

import torch

torch.set_num_threads(1)
