"""What this machine has, and which low-precision products are fast on it."""

import math
import os
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from nanoq import __version__

_CONTAINER = Path("/sys/fs/cgroup")  # what Linux allows the processes of a container


@dataclass(frozen=True)
class MachineReport:
    """What the course runs on.

    Attributes:
        versions: of Python and of the packages that matter.
        system: operating system and processor type.
        instructions: the widest vector instructions that torch uses here, such as "AVX2".
        cores: that this process may use.
        threads: that torch uses for one operation.
        memory_gb, free_memory_gb: that this process may use, in units of 10^9 bytes.
        gpu: its name; None without one.
    """

    versions: dict[str, str]
    system: str
    instructions: str
    cores: int
    threads: int
    memory_gb: float
    free_memory_gb: float
    gpu: str | None

    def __str__(self) -> str:
        lines = self.versions | {
            "system": self.system,
            "processor": f"{self.instructions}; cores: {self.cores}, threads: {self.threads}",
            "memory": f"{self.free_memory_gb:.1f} GB free of {self.memory_gb:.1f} GB",
            "GPU": self.gpu or "none (none is needed)",
        }
        return "\n".join(f"{name:10} {value}" for name, value in lines.items())


def machine_report() -> MachineReport:
    """Look at this machine."""
    memory, free = _memory()
    affinity = getattr(os, "sched_getaffinity", None)  # a container may have fewer cores than its host
    capability = torch.backends.cpu.get_cpu_capability()
    return MachineReport(
        versions={"Python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
                  "nanoq": __version__},
        system=f"{platform.system()}, {platform.machine()}",
        instructions="no vector instructions" if capability == "DEFAULT" else capability,
        cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_gb=memory / 1e9,
        free_memory_gb=free / 1e9,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )  # fmt: skip


def _memory() -> tuple[int, int]:
    """Bytes of memory, and how many are free; both no more than a container's limit allows."""
    machine = psutil.virtual_memory()
    try:
        limit, used = (int((_CONTAINER / f"memory.{name}").read_text()) for name in ("max", "current"))
        about = dict(line.split() for line in (_CONTAINER / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or one without a limit, which says "max"
        return machine.total, machine.available
    free = limit - used + int(about.get("inactive_file", 0))  # files that it will forget when memory is wanted
    return min(machine.total, limit), max(0, min(machine.available, free))


# ---- which products are fast here ----

_INT8 = "int8"
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, _INT8: torch.int8}


def probe_products(size: int = 256, seconds: float = 0.4, device: str = "cpu") -> dict[str, float | None]:
    """Seconds that a (size, size) times (size, size) matrix product takes in fp32, bf16, fp16 and int8.

    On a CPU one thread does it: two threads that wait for each other on a busy machine would hide what is asked. Each
    type gets `seconds`, but at least two products, and its shortest time counts, which other programs disturb least.
    A number type for which torch has no product here gets None. int8 means int8 x int8 -> int32 (`torch._int_mm`).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some builds of torch announce that a type is slow: we shall see
            return {name: _shortest(*_product(name, size, device), seconds) for name in _TYPES}
    finally:
        torch.set_num_threads(threads)


def _product(name: str, size: int, device: str) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """The function that multiplies two matrices of a type, and a matrix (size, size) to give it."""
    generator = torch.Generator().manual_seed(0)
    values = 40 * torch.randn(size, size, generator=generator)
    matrix = values.clamp(-127, 127).to(_TYPES[name]).to(device)
    return (torch._int_mm if name == _INT8 else torch.mm), matrix


def _shortest(multiply: Callable[[Tensor, Tensor], Tensor], matrix: Tensor, seconds: float) -> float | None:
    """The shortest time of one product within the time given; None if there is no such product."""
    best, end = math.inf, time.perf_counter() + seconds
    try:
        multiply(matrix, matrix)[0, 0].item()  # the first one also sets things up
        while best == math.inf or time.perf_counter() < end:
            start = time.perf_counter()
            multiply(matrix, matrix)[0, 0].item()  # reading a value waits for a GPU to finish
            best = min(best, time.perf_counter() - start)
    except RuntimeError:  # NotImplementedError is one
        return None
    return best


def describe_products(times: dict[str, float | None]) -> str:
    """Say in a sentence or two what `probe_products` has found."""
    ratios = {name: ratio for name, ratio in ratios_to_fp32(times).items() if name != "fp32"}
    parts = [f"{name} {in_words(ratio)}" for name, ratio in ratios.items() if ratio]
    parts += [f"{name} not supported" for name, ratio in ratios.items() if ratio is None]
    faster = [name for name, ratio in ratios.items() if ratio and ratio < 1 / _SAME]
    if not faster:
        meaning = "fewer bits save memory on this machine, but a plain product in them saves no time."
    else:
        meaning = f"on this machine a product in {_list(faster)} saves time as well as memory."
    return f"Compared with fp32: {_list(parts)}. So {meaning}"


_SAME = 1.15
"""Times within this factor of each other are not told apart."""


def ratios_to_fp32(times: dict[str, float | None]) -> dict[str, float | None]:
    """How long a product takes in each type if it takes 1 in fp32; None where there is none."""
    return {name: None if seconds is None else seconds / times["fp32"] for name, seconds in times.items()}


def in_words(ratio: float) -> str:
    """How much longer or shorter a time is than another, in words."""
    if 1 / _SAME <= ratio <= _SAME:
        return "about the same"
    factor, words = (ratio, "as long") if ratio > 1 else (1 / ratio, "as fast")
    return f"{factor:.{0 if factor >= 10 else 1}f} times {words}"


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
