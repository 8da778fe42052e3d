"""A small residual network (He et al. 2016) that is read from top to bottom, with the parts of the course's GPT."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ResNetConfig:
    """Shape of a residual network. The defaults are the course's 0.3 M-parameter model.

    Attributes:
        channels: of a picture.
        classes: number of labels.
        widths: channels of each stage; every stage but the first halves height and width.
        blocks_per_stage: residual blocks in a stage.
        stem_stride: 2 halves height and width before the first stage, at a quarter of the cost.
    """

    channels: int = 1
    classes: int = 10
    widths: tuple[int, ...] = (32, 64, 128)
    blocks_per_stage: int = 1
    stem_stride: int = 2

    def __post_init__(self):
        for name in ("channels", "classes", "blocks_per_stage", "stem_stride"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        if not self.widths or any(not isinstance(width, int) or width < 1 for width in self.widths):
            raise ValueError(f"widths must be positive integers, not {self.widths!r}")


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """A convolution and a batch norm, whose shift makes a bias needless."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around which the input is carried, by a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = _conv_norm(inputs, outputs, 3, stride)
        self.second = _conv_norm(outputs, outputs, 3, 1)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _conv_norm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride), rounded up."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, residual blocks, and a linear layer on the mean over all positions.

    Args:
        config: the shape.
        seed: seed of the initial weights; the global random state is not touched. None leaves them as torch makes them,
            for a model that is about to be loaded.
    """

    def __init__(self, config: ResNetConfig, seed: int | None = 0):
        super().__init__()
        self.config = config
        blocks, width = [], config.widths[0]
        with torch.random.fork_rng(devices=[]):  # torch's own initial values would advance the global generator
            self.stem = _conv_norm(config.channels, width, 3, config.stem_stride)
            for stage, outputs in enumerate(config.widths):
                for block in range(config.blocks_per_stage):
                    blocks.append(ResidualBlock(width, outputs, 2 if stage and not block else 1))
                    width = outputs
            self.blocks = nn.ModuleList(blocks)
            self.classifier = nn.Linear(width, config.classes)
        if seed is not None:
            self._initialize(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _initialize(self, generator: torch.Generator) -> None:
        """N(0, 2 / fan out) for convolutions (He et al. 2015), N(0, 1 / width) for the classifier."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * math.prod(module.kernel_size)
                module.weight.normal_(0, (2 / fan_out) ** 0.5, generator=generator)
        self.classifier.weight.normal_(0, self.classifier.in_features ** -0.5, generator=generator)
        self.classifier.bias.zero_()

    def parameter_count(self) -> int:
        """Number of parameters; running means and variances are none."""
        return sum(p.numel() for p in self.parameters())

    def embed(self, pictures: Tensor) -> Tensor:
        """Pictures (N, channels, H, W) -> the first block's input (N, widths[0], H / stem_stride, W / stem_stride)."""
        if pictures.dim() != 4 or pictures.shape[1] != self.config.channels:
            raise ValueError(f"pictures must be (N, {self.config.channels}, H, W), not {tuple(pictures.shape)}")
        # Channels last would be a tenth faster, but torch 2.13's oneDNN then corrupts the heap on AVX2 machines without
        # AVX-512, in the gradient of a 1x1 convolution with stride 2 and fewer than 8 channels.
        return F.relu(self.stem(pictures.contiguous()))

    def head(self, x: Tensor) -> Tensor:
        """The last block's output (N, widths[-1], H, W) -> logits (N, classes)."""
        return self.classifier(x.mean((2, 3)))

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (N, channels, H, W) -> logits (N, classes)."""
        x = self.embed(pictures)
        for block in self.blocks:
            x = block(x)
        return self.head(x)
