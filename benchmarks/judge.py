"""What the levels of `nanoq judge` ask for: models of the course's methods, each written to a folder and judged.

    OMP_NUM_THREADS=1 python benchmarks/judge.py

writes data/results/tales/judge.csv. All are of `tales-2.7m`, calibrated on 128 windows of its training text, and judged
on 128 held-out windows.
"""

import argparse
import tempfile
from pathlib import Path

import nanoq
from nanoq.files import data_dir, write_csv
from nanoq.teach.judge import MODEL, judge, rows, standings

CODED = {"embeddings": 8}
MODELS = {  # by name: method, bits, whether the codes are entropy-coded afterwards, and options
    "nearest-4": ("nearest", 4, False, {}),
    "gptq-4": ("gptq", 4, False, {}),
    "gptq-4-coded": ("gptq", 4, True, {}),
    "gptq-3": ("gptq", 3, False, {}),
    "gptq-3-groups": ("gptq", 3, False, {"group_size": 64}),
    "gptq-2": ("gptq", 2, False, {}),
    "rate-3.23-equal": ("gptq", None, False, CODED | {"rate": 3.231, "spacing": "equal"}),
    "rate-2.24-equal": ("gptq", None, False, CODED | {"rate": 2.237, "spacing": "equal"}),
    "rate-2.24": ("gptq", None, False, CODED | {"rate": 2.237}),
    "rate-2.24-in-turn": ("gptq", None, False, CODED | {"rate": 2.237, "true_sequential": True,
                                                        "match_original": True}),
    "rate-2-in-turn": ("gptq", None, False, CODED | {"rate": 2.0, "true_sequential": True, "match_original": True}),
}  # fmt: skip


def main() -> None:
    """Make all models, judge them, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=data_dir() / "results" / "tales" / "judge.csv")
    out = parser.parse_args().out
    original = nanoq.load(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        for name, (method, bits, coded, options) in MODELS.items():
            nanoq.save(Path(folder, name), nanoq.quantize(original, method, bits, **options), entropy=coded)
        entries = judge(folder)
    write_csv(out, rows(entries))
    print(standings(entries))


if __name__ == "__main__":
    main()
