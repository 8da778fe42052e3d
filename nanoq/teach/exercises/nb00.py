"""Exercises of notebook 00, start here."""

import torch

from nanoq.teach.check import Exercise, Mistake

EXERCISES = [
    Exercise(
        id="00.scale",
        reference=lambda weight: weight.abs().max() / 127,
        cases=[
            (torch.tensor([0.5, -1.0, 0.25]),),
            (torch.tensor([[3.0, -0.1], [0.2, -6.35]]),),
            (torch.tensor([-0.2, 0.9, 1.27]),),
        ],
        mistakes=[
            Mistake(
                lambda weight: weight.max() / 127,
                "the largest weight may be a negative one: take the maximum of the absolute values.",
            ),
            Mistake(
                lambda weight: weight.abs().max() / 128,
                "the largest int8 code is 127, not 128: the largest weight needs a code that does not exist.",
            ),
            Mistake(
                lambda weight: weight.abs().max() / 255,
                "255 steps cover the whole range from -max to max; from zero to max there are only 127.",
            ),
            Mistake(
                lambda weight: 127 / weight.abs().max(),
                "upside down: the scale is the step in the weight that one step of the code stands for.",
            ),
        ],
    ),
]
