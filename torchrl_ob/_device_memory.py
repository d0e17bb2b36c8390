"""The memory that a device has for what is computed at a time."""

from __future__ import annotations

import torch


@torch.compiler.assume_constant_result
def memory_for_chunks(device: torch.device) -> int:
    """Bytes that one chunk may take in all on a GPU.

    A quarter of its memory, so that sizes, and with them roundings, are the same in every run on it; or half of what is
    free, where that is less. 4 GiB on what tells neither.

    Args:
        device: not a CPU, whose caches set the size.
    """
    if device.type != "cuda":
        return 2**32
    free, total = torch.cuda.mem_get_info(device)
    # what torch keeps for its next tensors is free too
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(min(total // 4, free // 2))
