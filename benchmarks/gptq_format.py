"""What GPTQModel reads from a checkpoint that `export_gptq` wrote, compared with nanoq bit for bit.

It needs an environment of its own, on which nanoq does not depend (GPTQModel asks for newer packages than nanoq does):

    python -m venv /tmp/venv-gptqmodel
    /tmp/venv-gptqmodel/bin/pip install gptqmodel numba tqdm
    OMP_NUM_THREADS=1 TORCHDYNAMO_DISABLE=1 PYTHONPATH=. /tmp/venv-gptqmodel/bin/python benchmarks/gptq_format.py

(without torch.compile, which takes half a minute for each model).

For each width and grid a Llama of two small blocks with random weights is quantised, exported and loaded by
`GPTQModel.load` with its torch kernel on the CPU. A row says which format and zero points were written, how many layers
were compared and how many of their weights, float16, differ; the last columns compare the logits. "mixed" has layers of
other bits and group sizes and one that is not quantised, all listed under `dynamic`. In "sorted" the columns of a group
lie all over the row, as `desc_act` leaves them.
"""

import contextlib
import io
import tempfile
import warnings
from pathlib import Path

import gptqmodel
import torch
from gptqmodel import BACKEND, GPTQModel
from tokenizers import Tokenizer, models
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from nanoq.quant import QuantLinear, affine_grid, nearest
from nanoq.quant.gptq_format import export_gptq

GROUP = {"granularity": "group", "group_size": 32}
MIXED = {"mlp.up_proj": {"bits": 8, "symmetric": True}, "mlp.down_proj": {"bits": 3} | GROUP, "1.mlp.gate_proj": None}


def llama() -> LlamaForCausalLM:
    """Two blocks with random weights, in float16's values."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                         num_attention_heads=2, max_position_embeddings=64, tie_word_embeddings=False)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * 5).half())
    return model


@torch.no_grad()
def quantise(model: nn.Module, options: dict, others: dict, shuffle: bool) -> None:
    """Round every linear layer of the blocks to nearest; `others` has options for layers by the end of their name."""
    for name, layer in list(model.model.layers.named_modules()):
        own = next((o for end, o in others.items() if name.endswith(end)), options)
        if isinstance(layer, nn.Linear) and own is not None:
            n = layer.in_features
            order = torch.randperm(n, generator=torch.Generator().manual_seed(n)) if shuffle else torch.arange(n)
            weight = layer.weight[:, order]
            grid = affine_grid(weight, **own)
            packed = QuantLinear.from_codes(nearest(weight, grid), grid, order=order if shuffle else None)
            model.model.layers.set_submodule(name, packed)


def save_tokenizer(folder: str) -> None:
    """Any tokeniser; GPTQModel loads no model without one."""
    words = models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>")
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), bos_token="<s>", eos_token="</s>", pad_token="</s>",
                            unk_token="<unk>").save_pretrained(folder)


@torch.no_grad()
def compare(label: str, options: dict, others: dict, shuffle: bool = False) -> bool:
    """Print the row of one model; whether every weight is the same."""
    model = llama()
    quantise(model, options, others, shuffle)
    ours = {name: layer.dequantize().half() for name, layer in model.named_modules() if isinstance(layer, QuantLinear)}
    tokens = torch.randint(128, (2, 32), generator=torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as folder:
        export_gptq(folder, model)
        save_tokenizer(folder)
        block = (Path(folder) / "quantize_config.json").read_text()
        version = "gptq_v2" if "gptq_v2" in block else "gptq"
        with contextlib.redirect_stdout(io.StringIO()):  # its log
            # float16 by name: on a CPU it would round the scales to bfloat16 otherwise
            reader = GPTQModel.load(folder, device="cpu", backend=BACKEND.GPTQ_TORCH, dtype=torch.float16).model
        theirs = {name: layer.dequantize_weight().T for name, layer in reader.named_modules()
                  if hasattr(layer, "qzeros")}
        logits = reader(tokens).logits.float()
    different = sum(int((theirs[name] != weight).sum()) for name, weight in ours.items())
    same = ours.keys() == theirs.keys() and not different
    expected = model(tokens).logits
    error = float((logits - expected).norm() / expected.norm())
    print(f"{label:<24}{version:<9}{len(theirs):>7}{different:>11}{error:>14.1e}", flush=True)
    return same


def main() -> None:
    """Compare every width and grid, and a mixed recipe."""
    warnings.filterwarnings("ignore")
    print(f"gptqmodel {gptqmodel.__version__}, torch {torch.__version__}")
    print(f"{'model':<24}{'format':<9}{'layers':>7}{'different':>11}{'logits error':>14}")
    same = True
    for bits in (2, 3, 4, 8):
        for symmetric in (False, True):
            for granularity in ({"granularity": "channel"}, GROUP):
                label = f"{bits} bit {'sym' if symmetric else 'asym'} {granularity['granularity']}"
                same &= compare(label, {"bits": bits, "symmetric": symmetric} | granularity, {})
    same &= compare("4 bit, mixed", {"bits": 4}, MIXED)
    for symmetric in (False, True):
        label = f"4 bit {'sym' if symmetric else 'asym'}, sorted"
        same &= compare(label, {"bits": 4, "symmetric": symmetric} | GROUP, {}, shuffle=True)
    print("every weight is the same" if same else "SOME WEIGHTS DIFFER")


if __name__ == "__main__":
    main()
