"""How much room the package takes, with what it needs, in a fresh virtual environment.

    python benchmarks/install.py

adds one set of packages after the other to an environment, prints the bytes of its files after each, and which packages
are the largest, and writes data/results/install.csv. pip has to find a CPU build of torch: on Linux let
PIP_EXTRA_INDEX_URL be https://download.pytorch.org/whl/cpu. `--no-compile` leaves out bytecode, which Python then makes
of each module at its first import.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from nanoq.files import data_dir, write_csv

ROOT = Path(__file__).parents[1]
SETS = {
    "the package": ["--no-compile", "."],
    "the course": ["--no-compile", ".[course,lab]"],
    "the course and models of Hugging Face": ["--no-compile", ".[course,lab,hf]"],
    "everything, tests and documentation too": ["--no-compile", "-r", "requirements.txt"],
}
LARGEST = 6
SIZES = """
import os
from importlib.metadata import distributions

def size(distribution):
    places = map(distribution.locate_file, distribution.files or [])
    return sum(os.path.getsize(place) for place in places if os.path.exists(place))

ranked = sorted(distributions(), key=size, reverse=True)
print(", ".join(f"{one.metadata['Name']} {size(one) / 1e6:.0f}" for one in ranked[:%d]))
"""


def main() -> None:
    """Install, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder, "Scripts" if sys.platform == "win32" else "bin", "python")
        pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
        torch = next(line for line in pinned if line.startswith("torch=="))
        for what, arguments in SETS.items():
            subprocess.run([python, "-m", "pip", "install", "-q", torch, *arguments], cwd=ROOT, check=True)
            size = sum(file.stat().st_size for file in Path(folder).rglob("*") if not file.is_symlink())
            largest = subprocess.run([python, "-c", SIZES % LARGEST], capture_output=True, text=True, check=True)
            rows.append({"what": what, "pip install": " ".join(arguments), "gb": round(size / 1e9, 2),
                         "largest_mb": largest.stdout.strip()})
            print(rows[-1])
    write_csv(data_dir() / "results" / "install.csv", rows)


if __name__ == "__main__":
    main()
