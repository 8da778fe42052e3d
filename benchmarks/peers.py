"""nanoq and other packages that quantise weights, on one small model and one task, each in an environment of its own.

    OMP_NUM_THREADS=1 python benchmarks/peers.py NAME [--bits 4]

measures one of them in the environment in which it is started, and puts its rows into data/results/peers.csv in the
place of its older ones. The task: the 24 linear layers in the blocks of the shipped tales-2.7m, a GPT trained on
generated text; everything else stays in fp32. Methods that calibrate get the same 128 windows of 256 tokens of the
training split. Then the same 64 held-out windows, with columns

- logit_error: ||logits - fp32 logits|| / ||fp32 logits||, and kl: the mean divergence from fp32 in nats a token;
- perplexity, and delta_nats: the loss that quantising adds, with the 95 % interval of the paired difference;
- cpu_seconds: processor time of quantising on one thread, calibration included, the least of three if it is short. On
  an idle machine that is the wall-clock time; on a busy one, unlike that, it hardly depends on what else runs;
- bytes: what the 24 layers take in the package's own state dict, scales and all; "–" if it only simulates, or only its
  solver is used;
- granularity: what shares a scale.

"official algorithm" is that of IST-DASLab, as benchmarks/gptq.py has it. Both it and the solver of llm-compressor run
in nanoq's driver, on its grid. Grids differ otherwise: those of nanoq, hqq, brevitas and quanto below 8 bits are
asymmetric, that of quanto at 8 bits is symmetric, torchao has both.

An environment for each, with Python 3.11:

    nanoq, official algorithm  pip install -r requirements.txt
    optimum-quanto             pip install torch==2.13.0 -e . optimum-quanto==0.2.7
    hqq                        pip install torch==2.13.0 -e . hqq==0.2.8.post1
    torchao                    pip install torch==2.13.0 -e . torchao==0.18.0
    brevitas                   pip install torch==2.13.0 -e . brevitas==0.13.4
    llm-compressor             pip install torch==2.13.0 -e . llmcompressor==0.14.0.1

What to know of them: optimum-quanto has no 3 bits, chooses its groups itself below 8, and compiles a C++ extension at
its first use there, which takes minutes. hqq's state dict keeps scales and zeros in float32. torchao's CPU format keeps
any width in whole bytes. brevitas makes its scales from the weights that GPTQ is moving, unless they are told to be
parameters, as is done here: without that its GPTQ changed no code of a symmetric 4-bit layer, and was worse than
nearest on an asymmetric one, silently. llm-compressor's entry point wants a model of Hugging Face's transformers, so
that only its solver is measured.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import torch
import torch.nn.functional as F
from gptq import official
from torch import Tensor, nn

import nanoq
from nanoq.files import data_dir, read_csv, write_csv
from nanoq.lm import load_corpus, paired_difference, perplexity, window_losses
from nanoq.quant import METHODS, Grid, LayerStats, Recipe, linear_layers, quantize_model, sample_windows

RESULTS = data_dir() / "results" / "peers.csv"
KEYS = ("peer", "method", "bits", "granularity")  # of a case
BITS = (8, 4, 3, 2)
WINDOWS = 64
REPEATS = 3
QUANTO_GROUPS = "group of 96 or 128"


@dataclass(frozen=True)
class Case:
    """One way of one peer to quantise the model.

    Attributes:
        method: what the peer calls it.
        bits: of a code.
        granularity: what shares a scale.
        run: takes a copy of the model and the calibration windows, and returns the quantised model.
        simulated: whether the peer keeps float weights that merely have few different values.
    """

    method: str
    bits: int
    granularity: str
    run: Callable[[nn.Module, Tensor], nn.Module]
    simulated: bool = False


class Recorder(nn.Module):
    """A model that keeps its logits, and runs outside torch's inference mode, in which quanto's packed weights fail."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.logits = model, []

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        with torch.inference_mode(False), torch.no_grad():
            logits = self.model(tokens.clone())
        self.logits.append(logits.flatten(0, 1))
        return logits


class Bench:
    """The task, the same for all: model, calibration windows, held-out windows, and what fp32 says about these."""

    def __init__(self):
        checkpoint, corpus = nanoq.load("tales-2.7m"), load_corpus("tales")
        self.model = checkpoint.model.eval()
        self.context = self.model.config.context
        self.calibration = sample_windows(checkpoint.tokenizer.encode(corpus.train), self.context, 128, seed=0)
        self.test = checkpoint.tokenizer.encode(corpus.test)
        self.losses, self.logits = self.evaluate(self.model)

    def evaluate(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Losses (W,) and logits (tokens, V) on the held-out windows."""
        recorder = Recorder(model)
        losses = window_losses(recorder, self.test, self.context, limit=WINDOWS)
        return losses, torch.cat(recorder.logits).double()

    def measure(self, case: Case) -> dict:
        """Quantise, several times if that is short, and evaluate once."""
        with warnings.catch_warnings(action="ignore"):
            case.run(deepcopy(self.model), self.calibration[:12])  # imports, and compiles
        seconds = float("inf")
        for _ in range(REPEATS):
            model = deepcopy(self.model)
            started = time.process_time()
            model = case.run(model, self.calibration)
            seconds = min(seconds, time.process_time() - started)
            if seconds > 1:
                break
        restore_others(model, self.model)
        losses, logits = self.evaluate(model)
        reference = F.log_softmax(self.logits, dim=1)
        kl = F.kl_div(F.log_softmax(logits, dim=1), reference, reduction="batchmean", log_target=True)
        delta = paired_difference(losses, self.losses)
        return {
            "method": case.method, "bits": case.bits, "granularity": case.granularity,
            "logit_error": f"{float((logits - self.logits).norm() / self.logits.norm()):.6f}", "kl": f"{kl:.3g}",
            "perplexity": round(perplexity(losses), 4), "delta_nats": round(delta.mean, 5),
            "ci_low": round(delta.low, 5), "ci_high": round(delta.high, 5),
            "cpu_seconds": f"{seconds:.3g}" if case.bits < 32 else "–",
            "bytes": "–" if case.simulated else sum(stored_bytes(model.get_submodule(name).state_dict())
                                                    for name in linear_layers(self.model)),
        }


def restore_others(model: nn.Module, original: nn.Module) -> None:
    """Give everything but the linear layers its fp32 values again."""
    mine = model.state_dict()
    layers = tuple(f"{name}." for name in linear_layers(original))
    for name, values in original.state_dict().items():
        if not name.startswith(layers):
            mine[name].copy_(values)


def stored_bytes(value: object) -> int:
    """Bytes of all tensors in a state dict, those that make up a packed tensor among them."""
    if isinstance(value, dict):
        return sum(map(stored_bytes, value.values()))
    if not isinstance(value, Tensor):
        return 0
    if hasattr(value, "__tensor_flatten__"):
        return sum(stored_bytes(getattr(value, name)) for name in value.__tensor_flatten__()[0])
    return value.numel() * value.element_size()


def nanoq_cases() -> Iterator[Case]:
    """Nearest and GPTQ, for each row and in groups of 64, and NF4."""
    def case(method: str, bits: int, granularity: str, **options) -> Case:
        recipe = Recipe(method.split()[0], bits=bits, **options)

        def run(model: nn.Module, calibration: Tensor) -> nn.Module:
            quantize_model(model, recipe, calibration if recipe.needs_calibration else None)
            return model

        return Case(method, bits, granularity, run)

    groups = {"granularity": "group", "group_size": 64}
    yield Case("fp32", 32, "–", lambda model, _: model)
    for bits in BITS:
        yield case("nearest", bits, "row")
        yield case("nearest", bits, "group of 64", grid_options=groups)
        yield case("gptq", bits, "row")
        yield case("gptq act_order", bits, "row", method_options={"act_order": True})
        yield case("gptq descent=3", bits, "row", method_options={"descent": 3})
        yield case("gptq", bits, "group of 64", grid_options=groups)
        if bits == 4:
            yield case("nearest nf4", bits, "group of 64", grid="nf4")
            yield case("gptq nf4", bits, "group of 64", grid="nf4")


def driven_cases(method: str, solve: Callable[..., Tensor]) -> Iterator[Case]:
    """A GPTQ solver that is called as solve(weight, grid, stats) by nanoq's driver, on nanoq's grid for each row."""
    def codes(weight: Tensor, grid: Grid, stats: LayerStats) -> Tensor:
        return grid.encode(solve(weight, grid, stats)).long()

    def run(model: nn.Module, calibration: Tensor, bits: int) -> nn.Module:
        METHODS[method] = codes
        quantize_model(model, Recipe(method, bits=bits), calibration)
        return model

    for bits in BITS:
        yield Case(method, bits, "row", partial(run, bits=bits), simulated=True)


def official_cases() -> Iterator[Case]:
    """The algorithm of IST-DASLab as `benchmarks/gptq.py` has it."""
    return driven_cases("gptq", lambda weight, grid, stats: official(weight, grid, stats.gram))


def llmcompressor_cases() -> Iterator[Case]:
    """Its solver alone: what goes round it asks for a model of Hugging Face's transformers."""
    from compressed_tensors.quantization import QuantizationArgs
    from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight

    def solve(weight: Tensor, grid: Grid, stats: LayerStats) -> Tensor:
        how = QuantizationArgs(num_bits=grid.bits, type="int", symmetric=False, strategy="channel", actorder=None)
        zero_point = grid.zero_point - 2 ** (grid.bits - 1)  # its codes are signed
        rounded, _, gave_up = quantize_weight(
            weight[None].clone(), 2 * stats.gram[None], grid.scale[None], zero_point[None], None, how)
        if gave_up.any():
            raise RuntimeError("the solver fell back to rounding to nearest")
        return rounded[0]

    return driven_cases("gptq solver", solve)


def quanto_cases() -> Iterator[Case]:
    """Its integers of 8, 4 and 2 bits, to nearest; it chooses the groups itself."""
    from optimum.quanto import freeze, qint2, qint4, qint8, quantize

    def run(model: nn.Module, _: Tensor, kind: object) -> nn.Module:
        quantize(model, weights=kind)
        freeze(model)
        return model

    for bits, kind, granularity in ((8, qint8, "row"), (4, qint4, QUANTO_GROUPS), (2, qint2, QUANTO_GROUPS)):
        yield Case("nearest", bits, granularity, partial(run, kind=kind))


def hqq_cases() -> Iterator[Case]:
    """Its half-quadratic solver, for each row and in its usual groups of 64."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    def run(model: nn.Module, _: Tensor, config: dict) -> nn.Module:
        for name, layer in linear_layers(model).items():
            model.set_submodule(name, HQQLinear(layer, config, compute_dtype=torch.float32, device="cpu"))
        return model

    for bits in BITS:
        for granularity, group_size in (("row", None), ("group of 64", 64)):
            config = BaseQuantizeConfig(nbits=bits, group_size=group_size, axis=1)
            yield Case("hqq", bits, granularity, partial(run, config=config))


def torchao_cases() -> Iterator[Case]:
    """Its integers of any width, symmetric (its default) and asymmetric."""
    from torchao.quantization import IntxWeightOnlyConfig, MappingType, quantize_
    from torchao.quantization.granularity import PerAxis

    def run(model: nn.Module, _: Tensor, config: IntxWeightOnlyConfig) -> nn.Module:
        quantize_(model, config, filter_fn=lambda module, name: isinstance(module, nn.Linear))
        return model

    for bits in BITS:
        for method, mapping in (("nearest", MappingType.SYMMETRIC), ("nearest asymmetric", MappingType.ASYMMETRIC)):
            config = IntxWeightOnlyConfig(getattr(torch, f"int{bits}"), PerAxis(0), mapping)
            yield Case(method, bits, "row", partial(run, config=config))


def brevitas_cases() -> Iterator[Case]:
    """Its GPTQ, block by block and within a block layer by layer, on its asymmetric grid for each row."""
    import brevitas.nn
    from brevitas.core.zero_point import ParameterFromStatsFromParameterZeroPoint as FixedZeroPoint
    from brevitas.graph.gptq import gptq_mode
    from brevitas.quant.shifted_scaled_int import ShiftedUint8WeightPerChannelFloat as Quantizer

    @torch.no_grad()
    def run(model: nn.Module, calibration: Tensor, bits: int) -> nn.Module:
        for name, layer in linear_layers(model).items():
            new = brevitas.nn.QuantLinear(
                layer.in_features, layer.out_features, bias=False, weight_quant=Quantizer, weight_bit_width=bits,
                weight_scaling_impl_type="parameter_from_stats", weight_zero_point_impl=FixedZeroPoint)
            new.weight.copy_(layer.weight)
            model.set_submodule(name, new)
        model.eval()
        model(calibration[:1])  # takes the scales from the weights as they are
        hidden = [model.embed(rows) for rows in calibration.split(16)]
        for block in model.blocks:
            with gptq_mode(block, use_quant_activations=False, create_weight_orig=False) as mode:
                for _ in range(mode.num_layers):
                    for x in hidden:
                        mode.model(x)
                    mode.update()
            hidden = [block(x) for x in hidden]
        return model

    for bits in BITS:
        yield Case("gptq", bits, "row", partial(run, bits=bits), simulated=True)


# name: (its package, its cases)
PEERS: dict[str, tuple[str, Callable[[], Iterator[Case]]]] = {
    "nanoq": ("nanoq", nanoq_cases),
    "official algorithm": ("nanoq", official_cases),
    "optimum-quanto": ("optimum-quanto", quanto_cases),
    "hqq": ("hqq", hqq_cases),
    "torchao": ("torchao", torchao_cases),
    "llm-compressor": ("llmcompressor", llmcompressor_cases),
    "brevitas": ("brevitas", brevitas_cases),
}


def main() -> None:
    """Measure one peer and put its rows into the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--bits", type=int, choices=BITS, help="measure these only, and keep the other rows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    package, cases = PEERS[arguments.name]
    bench = Bench()
    for case in cases():
        if arguments.bits in (None, case.bits):
            row = {"peer": arguments.name, "version": version(package), **bench.measure(case)}
            print(row, flush=True)
            put(row)


def put(row: dict) -> None:
    """Write the table anew with this row, instead of an older one of the same case if there is one."""
    rows = read_csv(RESULTS) if RESULTS.exists() else []
    row = {key: str(value) for key, value in row.items()}
    places = [i for i, old in enumerate(rows) if all(old[key] == row[key] for key in KEYS)] or [len(rows)]
    rows[places[0] : places[0] + 1] = [row]
    rows.sort(key=lambda row: (list(PEERS).index(row["peer"]), -int(row["bits"])))
    write_csv(RESULTS, rows)


if __name__ == "__main__":
    main()
