"""What would fail on this machine, and what to do about it: `nanoq doctor`, and the first check of notebook 00.

A check is a function that looks at one thing and gives a `Finding`; what it raises becomes one, too. What could crash
runs in a process of its own. Everything that is not Python's is imported where it is used, so that
`python -m nanoq.doctor` has something to say even where a package is broken or not there.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path

from nanoq import __version__
from nanoq.files import cache_dir, data_dir, sha256

OK, INFO, WARN, FAIL = "ok", "info", "warn", "FAIL"
AGAIN = "install nanoq again, from a complete copy"
FRESH = "install nanoq in a fresh virtual environment, with the versions of its requirements.txt"
LEAST_MEMORY, LEAST_DISK = 2.0, 1.0  # in GB of 10^9 bytes
SHOWN = ("torch", "numpy", "numba")  # whose versions are printed

OPTIONAL = {
    "transformers": "models of Hugging Face (notebook 15)",
    "datasets": "real texts and pictures from the Hugging Face hub",
    "jupyterlab": "notebooks in a browser of your own",
    "gguf": "llama.cpp's GGUF files",
}
"""Packages that not everybody needs, and what for."""

DATA = {
    "tinystories": ("tinystories_train.txt", "tinystories_valid.txt"),
    "wikitext-2": ("wikitext2_valid.tokens",),
    "imdb": ("imdb_train.jsonl", "imdb_test.jsonl"),
    "rotten-tomatoes": ("rotten_tomatoes_train.jsonl", "rotten_tomatoes_test.jsonl"),
    "fashion-mnist": ("fashion-mnist.safetensors",),
    "cifar-10": ("cifar-10.safetensors",),
}
"""The files of each data set that are looked for in the folder that `NANOQ_DATA` names."""


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes:
        status: "ok"; "info", which needs nothing; "warn", with which some things go worse; "FAIL".
        text: what was found.
        remedy: what to do about it.
        name: of the check.
    """

    status: str
    text: str
    remedy: str = ""
    name: str = ""

    def __str__(self) -> str:
        line = f"{self.status:6}{self.name}: {self.text}" + (f"; {self.remedy}" if self.remedy else "")
        return " ".join(line.split("\n"))


def doctor(skip: Collection[str] = ()) -> bool:
    """Print a line for each check as soon as it is done; whether nothing fails.

    Args:
        skip: names in `CHECKS` to leave out.
    """
    seen = set()
    for finding in examine(skip):
        print(finding, flush=True)
        seen.add(finding.status)
    if FAIL in seen:
        print("Something fails: the lines with FAIL say what to do.")
    elif WARN in seen:
        print("Nothing fails; the lines with warn say what would make things better.")
    else:
        print("Nothing fails: everything that the course needs is here.")
    return FAIL not in seen


def examine(skip: Collection[str] = ()) -> Iterator[Finding]:
    """The finding of each check but those to skip; an error in a check is a finding."""
    if unknown := set(skip) - set(CHECKS):
        raise ValueError(f"no check is called {', '.join(sorted(unknown))}: there are {', '.join(CHECKS)}")
    wanted = [name for name in CHECKS if name not in skip]
    with ThreadPoolExecutor() as pool:
        begun = {}
        for name in wanted:
            if name in AT_ONCE and not begun:
                begun = {other: pool.submit(_finding, other) for other in wanted if other in AT_ONCE}
            yield begun[name].result() if name in begun else _finding(name)


def _finding(name: str) -> Finding:
    """What a check has found."""
    try:
        finding = CHECKS[name]()
    except Exception as error:
        finding = Finding(FAIL, f"{type(error).__name__}: {error}", FRESH)
    return replace(finding, name=name)


# ---- what is installed ----


def check_packages() -> Finding:
    """Whether the packages that nanoq and its course need are here, and new enough."""
    needed = {name: least for name, (least, optional) in _requirements().items() if not optional}
    found = {name: _version(name) for name in needed}
    unfit = [name for name in needed if not _fits(found[name], needed[name])]
    if unfit:
        what = [f"{name} {found[name]} is older than {needed[name]}" if found[name] else f"{name} is missing"
                for name in unfit]
        return Finding(FAIL, ", ".join(what), "pip install " + " ".join(f'"{name}>={needed[name]}"' for name in unfit))
    shown = ", ".join(f"{name} {_version(name)}" for name in SHOWN)
    text = f"nanoq {__version__}, Python {platform.python_version()}, {shown}"
    if not needed:
        return Finding(WARN, f"{text}; what else is needed is known once nanoq is installed",
                       f'pip install -e "{Path(__file__).parents[1]}"')
    return Finding(OK, f"{text}; {len(needed) - len(SHOWN)} more, all new enough")


def check_optional(package: str) -> Finding:
    """Whether a package is here that not everybody needs."""
    least = _requirements().get(package, ("0", True))[0]
    found, command = _version(package), f'pip install "{package}>={least}"'
    if found is None:
        return Finding(INFO, f"not installed; only {OPTIONAL[package]} need it", command)
    if not _fits(found, least):
        return Finding(WARN, f"{found} is older than {least}; {OPTIONAL[package]} need it", command)
    return Finding(OK, f"{found}, for {OPTIONAL[package]}")


def _requirements() -> dict[str, tuple[str, bool]]:
    """Least version ("0": any) of each package that nanoq names, and whether the course does without it.

    Empty if nanoq is not installed.
    """
    from packaging.requirements import Requirement  # matplotlib brings it

    try:
        lines = metadata.requires("nanoq") or []
    except metadata.PackageNotFoundError:
        return {}
    found = {}
    for requirement in map(Requirement, lines):
        least = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        optional = requirement.marker is not None and not requirement.marker.evaluate({"extra": "course"})
        found[requirement.name] = (least[0] if least else "0", optional)
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _fits(version: str | None, least: str) -> bool:
    from packaging.version import Version

    return version is not None and Version(version) >= Version(least)


# ---- the machine ----


def check_processor() -> Finding:
    """How many cores there are for the work."""
    from nanoq.machine import machine_report

    about = machine_report()
    text = f"{about.instructions}; cores: {about.cores}, threads: {about.threads}"
    if about.cores < 2:
        return Finding(WARN, text, "with one core everything runs, in about twice the time that the cost cards say")
    return Finding(OK, text)


def check_memory() -> Finding:
    """Whether enough memory is free for any notebook."""
    from nanoq.machine import machine_report

    about = machine_report()
    text = f"{about.free_memory_gb:.1f} GB free of {about.memory_gb:.1f} GB"
    if about.free_memory_gb < LEAST_MEMORY:
        return Finding(WARN, text, "close other programs and notebooks")
    return Finding(OK, text)


def check_cache() -> Finding:
    """Whether what can be made again can be kept, and has room."""
    folder, named = cache_dir(), os.environ.get("NANOQ_CACHE")
    remedy = "let NANOQ_CACHE name another folder"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        return Finding(FAIL, f"nothing can be written to {_shown(folder)} ({error.strerror})", remedy)
    free = shutil.disk_usage(folder).free / 1e9
    text = f"{free:.1f} GB free for {_shown(folder)}"
    if folder.parent == Path(tempfile.gettempdir()) and str(folder) != named:  # that of `private_dir`
        wanted = f"NANOQ_CACHE={_shown(Path(named))}" if named else "the home folder"
        return Finding(WARN, f"{text}, which will not be kept for ever: {wanted} cannot be written to", remedy)
    if free < LEAST_DISK:
        return Finding(WARN, text, f"delete something there, or {remedy}")
    return Finding(OK, text)


def _shown(folder: Path) -> str:
    """A folder without the name of its owner, as it may be handed in or published with a notebook."""
    try:
        return os.path.join("~", folder.relative_to(Path.home()))
    except (RuntimeError, ValueError):  # there is no home, or it lies elsewhere
        return str(folder)


def check_products() -> Finding:
    """In which number types a matrix product is fast."""
    from nanoq.machine import describe_products

    code = "import json, nanoq.machine as m; print(json.dumps(m.probe_products(seconds=0.1)))"
    return Finding(INFO, describe_products(json.loads(_child(code))))


# ---- what runs in a process of its own, because it could crash ----


def check_compiled() -> Finding:
    """Whether numba compiles our loops, and what it makes of them computes the right numbers."""
    remedy = f"{FRESH}, or try another version of numba"
    try:
        wrong = json.loads(_child("import json, nanoq.doctor as d; print(json.dumps(d.wrong_loops()))"))
    except RuntimeError as error:
        return Finding(FAIL, f"numba cannot compile what GPTQ and the fast products need ({error})", remedy)
    if wrong:
        return Finding(FAIL, f"compiled by numba, {' and '.join(wrong)} computes wrong numbers", remedy)
    return Finding(OK, "GPTQ and a product with 4-bit weights compile, and compute the right numbers")


def wrong_loops() -> list[str]:
    """Which compiled loops compute something else than their definition; none, if all is well."""
    import torch

    from nanoq.quant import LayerStats, QuantLinear, affine_grid, gptq, nearest, use_backend

    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(64, 2, generator=generator), torch.randn(99, 2, generator=generator).cumsum(1)
    grid, stats = affine_grid(weight, 3), LayerStats.of(inputs)
    error = weight - grid.decode(nearest(weight, grid))
    moved = weight + (error[:, :1] * stats.gram[0, 1] / stats.gram[1, 1]) * torch.tensor([0, 1])
    walk = torch.equal(gptq(weight, grid, stats, damping=0), nearest(moved, grid))

    weight, x = torch.randn(32, 64, generator=generator), torch.randn(1, 64, generator=generator)
    grid = affine_grid(weight, 4)
    layer = QuantLinear.from_codes(nearest(weight, grid), grid)
    use_backend(layer, "int4")
    product = torch.allclose(layer(x), x @ grid.decode(nearest(weight, grid)).T, atol=1e-4)
    return [name for name, right in {"GPTQ": walk, "the product with 4-bit weights": product}.items() if not right]


_GRADIENT = """
import sys, torch
torch.set_num_threads(1)
for _ in range(100):
    pictures = torch.randn(10, 4, 6, 6).contiguous(memory_format=getattr(torch, sys.argv[1]))
    weight = torch.randn(6, 4, 1, 1, requires_grad=True)
    torch.nn.functional.conv2d(pictures, weight, stride=2).sum().backward()
    [bytes(size) for size in range(90)]  # small allocations, for which a damaged heap is fatal
print("sound")
"""


def check_convolutions() -> Finding:
    """Whether a convolution's gradient leaves the memory whole: in the layout that nanoq uses, it has to.

    torch 2.13's oneDNN corrupts the heap on AVX2 machines without AVX-512, with pictures in channels_last, stride 2 and
    fewer than 8 channels.
    """
    with ThreadPoolExecutor(2) as pool:
        used, other = pool.map(_gradient_fault, ("contiguous_format", "channels_last"))
    if used:
        return Finding(FAIL, f"the gradient of a convolution ends the process ({used})",
                       "notebooks 05 and 06 will stop: install another version of torch")
    known = "" if not other else ("; this torch has a fault in another layout, channels_last, which nanoq never uses: "
                                  "keep your own pictures contiguous")
    return Finding(OK, f"their gradients can be computed without a crash{known}")


def _gradient_fault(layout: str) -> str:
    """What is wrong with the gradient in a layout; nothing if all is well."""
    try:
        return "" if _child(_GRADIENT, layout) == "sound" else "it said nothing"
    except RuntimeError as error:
        return str(error)


def _child(code: str, *arguments: str, seconds: float = 120) -> str:
    """What Python code prints in a process of its own.

    Raises:
        RuntimeError: if it fails, crashes, or takes longer than that.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        child = subprocess.run([sys.executable, "-P", "-c", code, *arguments], env=environment, capture_output=True,
                               text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not done after {seconds:.0f} seconds") from None
    if child.returncode < 0:
        raise RuntimeError(f"the process was ended by {signal.Signals(-child.returncode).name}")
    if child.returncode:
        raise RuntimeError((child.stderr.strip() or f"exit code {child.returncode}").splitlines()[-1])
    return child.stdout.strip()


# ---- what nanoq reads ----


def check_models() -> Finding:
    """Whether each shipped model is there as it was written."""
    folders = sorted(path for path in (data_dir() / "checkpoints").glob("*") if path.is_dir())
    if not folders:
        return Finding(FAIL, f"there are none in {_shown(data_dir())}", AGAIN)
    damaged = [str(fault) for folder in folders if (fault := _fault_of(folder))]
    if damaged:
        return Finding(FAIL, ", and ".join(damaged), AGAIN)
    return Finding(OK, f"{', '.join(folder.name for folder in folders)}: whole")


def _fault_of(folder: Path) -> Exception | None:
    """What is wrong with the files of a shipped model; a card without a SHA-256 vouches for their length alone."""
    from nanoq.store import WEIGHTS, read_card, shapes_of

    try:
        card = read_card(folder)
        if "weights_sha256" not in card:
            shapes_of(folder / WEIGHTS)
        elif sha256(folder / WEIGHTS) != card["weights_sha256"]:
            raise ValueError(f"{folder / WEIGHTS} is damaged: its SHA-256 is not the one of its card")
    except (OSError, ValueError) as error:
        return error
    return None


def check_data() -> Finding:
    """Which real data sets the folder holds that `NANOQ_DATA` names."""
    named = os.environ.get("NANOQ_DATA")
    if not named:
        return Finding(INFO, "NANOQ_DATA is not set; the course does without it, and where you ask for real texts or "
                             "pictures they come from the Hugging Face hub")
    folder = _shown(Path(named))
    if not Path(named).is_dir():
        return Finding(WARN, f"NANOQ_DATA={folder} is no folder", "correct it, or unset it")
    found = {name: [file for file in files if (Path(named) / file).is_file()] for name, files in DATA.items()}
    whole = ", ".join(name for name, files in found.items() if len(files) == len(DATA[name])) or "no data set"
    lacks = [file for name, files in found.items() if files for file in DATA[name] if file not in files]
    if lacks:
        return Finding(WARN, f"{whole} in {folder}, which lacks {', '.join(lacks)}", "copy them there")
    if not any(found.values()):
        return Finding(WARN, f"{whole} in {folder}", "data/README.md says what the files are called")
    return Finding(OK, f"{whole} in {folder}")


CHECKS: dict[str, Callable[[], Finding]] = {
    "packages": check_packages,
    "processor": check_processor,
    "memory": check_memory,
    "cache": check_cache,
    "compiled loops": check_compiled,
    "convolutions": check_convolutions,
    "shipped models": check_models,
    "real data": check_data,
    **{package: partial(check_optional, package) for package in OPTIONAL},
    "products": check_products,
}
"""What is looked at, in this order."""

AT_ONCE = ("compiled loops", "convolutions")
"""Checks that wait for processes of their own, which begin together. What is measured is not: they would disturb it."""


if __name__ == "__main__":
    sys.exit(not doctor())
