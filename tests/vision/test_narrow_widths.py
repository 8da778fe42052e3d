"""Narrow networks train on every processor: see the comment in `ResNet.embed`."""

import os
import subprocess
import sys

NARROW = """
import random, torch
from nanoq.vision import ResNet, ResNetConfig

torch.set_num_threads(1)
rng = random.Random(0)
for _ in range(150):
    widths = tuple(rng.randint(1, 9) for _ in range(rng.randint(2, 3)))
    channels, size = rng.randint(1, 3), rng.randint(2, 13)
    model = ResNet(ResNetConfig(channels, 3, widths, stem_stride=rng.randint(1, 2)))
    for _ in range(5):
        pictures = torch.randn(rng.randint(2, 10), channels, size, size)
        if rng.random() < 0.5:
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        model(pictures).square().sum().backward()
        [bytes(n) for n in range(90)]  # small allocations: a damaged heap shows here
print("sound")
"""


def test_no_width_that_a_learner_chooses_damages_the_heap():
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}  # the processor with the fault, on any other
    child = subprocess.run([sys.executable, "-c", NARROW], env=environment, capture_output=True, text=True, timeout=300)
    assert (child.returncode, child.stdout) == (0, "sound\n"), child.stderr
