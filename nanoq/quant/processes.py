"""Calibration shared among processes: each has its batches, and all have the statistics of every batch."""

import os

import torch
import torch.distributed as dist

from nanoq.quant.calibrate import LayerStats


def processes() -> tuple[int, int]:
    """The number of this process and how many `torchrun` has started, which are joined from here on."""
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    if ranks > 1 and not dist.is_initialized():  # nor is it left again: it can be joined only once
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return (dist.get_rank(), ranks) if ranks > 1 else (0, 1)


def share_statistics(stats: dict[str, LayerStats]) -> None:
    """Make the statistics that each process has gathered on its batches those of all batches, in every process.

    They are means over tokens, so each counts by its tokens. A layer that only others' tokens reach is added, and one
    whose inputs do not match those of the unquantised model in one process does in none.
    """
    shares = [None] * dist.get_world_size()
    dist.all_gather_object(shares, {name: (own.tokens, len(own.gram), own.cross is not None)
                                    for name, own in stats.items()})
    found, device = dict(stats), next((own.gram.device for own in stats.values()), "cpu")
    stats.clear()
    for name, width in {name: width for share in shares for name, (_, width, _) in share.items()}.items():
        own = found.get(name) or LayerStats(width, device=device)
        total = sum(share[name][0] for share in shares if name in share)
        crossed = [share[name][2] for share in shares if name in share and share[name][0]]
        crossed = bool(crossed) and all(crossed)
        if not crossed or own.cross is None:
            own.cross = torch.zeros_like(own.gram) if crossed else None
        for mean in (own.gram, own.cross) if crossed else (own.gram,):
            dist.all_reduce(mean.mul_(own.tokens / max(total, 1)))
        own.tokens, own.state = total, object()
        own.factored.clear()
        stats[name] = own
