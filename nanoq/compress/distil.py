"""Distillation: a smaller model that learns from what a larger one predicts, rather than from the text alone."""

from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor

from nanoq.compress.structure import remove_blocks
from nanoq.lm.evaluate import evenly_spread
from nanoq.lm.model import GPT


def make_student(teacher: GPT, layers: int) -> GPT:
    """A copy of the teacher with some of its blocks, evenly spread (DistilBERT, Sanh et al. 2019, arXiv 1910.01108).

    Raises:
        ValueError: if it has not as many blocks.
    """
    there = len(teacher.blocks)
    if layers not in range(1, there + 1):
        raise ValueError(f"a student of {layers!r} blocks cannot be made of a teacher with {there}")
    kept = evenly_spread(there, layers).tolist()
    return remove_blocks(deepcopy(teacher), set(range(there)) - set(kept))


def distillation_loss(
    logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 1.0, alpha: float = 1.0
) -> Tensor:
    """How far a student is from its teacher and from the labels, in nats (Hinton et al. 2015, arXiv 1503.02531).

    alpha * temperature**2 * KL(teacher || student), both at the temperature, + (1 - alpha) * cross entropy.

    Args:
        logits: of the student, (..., classes).
        teacher: of the teacher, in the same shape.
        labels: int64 (...).
        temperature: that both logits are divided by; large ones let small probabilities count.
        alpha: share of the teacher, in [0, 1].
    """
    log_student, log_teacher = (F.log_softmax(x.flatten(0, -2) / temperature, -1) for x in (logits, teacher))
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return alpha * temperature**2 * divergence + (1 - alpha) * F.cross_entropy(logits.flatten(0, -2), labels.flatten())


def distillation(
    teacher: GPT, temperature: float = 1.0, alpha: float = 1.0
) -> Callable[[GPT, Tensor], Tensor]:
    """What `nanoq.lm.training.train` is to make small as `loss_fn`: `distillation_loss` on windows (B, T + 1).

    Args:
        teacher: stays as it is.
        temperature: that both models' logits are divided by.
        alpha: of the teacher in the loss; the rest is the text's own next tokens.
    """
    teacher.eval()

    def loss_fn(student: GPT, rows: Tensor) -> Tensor:
        with torch.no_grad():
            target = teacher(rows[:, :-1])
        return distillation_loss(student(rows[:, :-1]), target, rows[:, 1:], temperature, alpha)
    return loss_fn
