"""Quantise a folder of transformers of any size, block by block, from its files to new ones.

There is never a copy of the whole model. It is made without memory; the embeddings are packed, or stay as narrow as
files keep them; each block is read through the files' memory maps, widened to float32, quantised, run once more to give
the next block's inputs, written to a shard of its own, and emptied. What one block gives the next is kept in memory up
to a limit, and beyond it in files. A state beside the shards lets the same call go on where one ended that was killed.

The walk, the methods and the numbers are those of `quantize_model`, and the folder is that of `nanoq.store.save`, in
shards.
"""

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from nanoq import __version__
from nanoq.files import check_folder, sha256, write_text
from nanoq.hf import checkpoint as hf
from nanoq.hf.experts import split_experts
from nanoq.hf.model import HFModel, _make_linear, prove
from nanoq.quant.embeddings import packed_head, packed_table, packed_tables, tables_of, untied_head
from nanoq.quant.processes import processes, share_statistics
from nanoq.quant.qlinear import QuantLayer
from nanoq.quant.quantize import LayerReport, plan, quantize_block, round_others
from nanoq.quant.recipe import Recipe, Step, is_blockwise
from nanoq.quant.visit import Call, Porter, stages
from nanoq.store import (
    CARD,
    INDEX,
    WEIGHTS,
    Checkpoint,
    card_for,
    layer_from_layout,
    layouts_of,
    naming,
    save_tensors,
    shapes_of,
    some,
    stored,
    weight_files,
    with_layers,
    write_card,
)

STATE, BETWEEN = "streaming.json", "streaming"
OLDER = ((".mlp.", ".block_sparse_moe."), (".gate_proj.", ".w1."), (".down_proj.", ".w2."), (".up_proj.", ".w3."),
         ("lm_head.", "embed_out."))
IN_MEMORY = 2**30  # bytes of what the blocks give each other


def quantize_folder(
    source: str | Path, out: str | Path, recipe: Recipe, calibration: Tensor | None = None, batch: int = 16,
    device: torch.device | str = "cpu", memory: int = IN_MEMORY,
) -> list[LayerReport]:
    """Quantise a model of transformers from its files to a new folder, one block in memory at a time.

    The same call goes on where one ended that was killed: with the first block that has no shard yet. Under `torchrun`
    each process runs its share of the batches, and the first one writes.

    Args:
        source: a folder of safetensors, or a model's name as in `nanoq.load`.
        out: a folder, in which there must be no model yet. It gets shards, an index, the card and the configuration.
        recipe: as in `quantize_model`; with `match_original` the unquantised model is streamed beside the other.
        calibration: tokens (windows, T), as in `quantize_model`.
        batch: windows that go through a block at once.
        device: where the blocks are quantised and run.
        memory: bytes of hidden states, in each process, beyond which they are kept in files in `out`.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: as `nanoq.load` and `quantize_model`; if a method rounds whole blocks; if the files lack a tensor by
            its name in the model, which some classes make of several; if `out` holds something else.
    """
    check_folder(Path(out))
    return quantize_opened(*open_folder(source, device), out, recipe, calibration, batch, memory)


@torch.no_grad()
def quantize_opened(
    checkpoint: Checkpoint, weights: "_Weights", out: str | Path, recipe: Recipe, calibration: Tensor | None = None,
    batch: int = 16, memory: int = IN_MEMORY, replace: bool = False,
) -> list[LayerReport]:
    """`quantize_folder` of what `open_folder` has given, which serves once; `replace` removes a model in `out`."""
    out = Path(out)
    check_folder(out)
    steps = plan(checkpoint.model, recipe, calibration)
    if any(map(is_blockwise, steps.values())):
        raise ValueError("methods that round a whole block at once need more than one block: quantise in memory")
    if out.is_dir() and out.samefile(weights.folder):
        raise ValueError(f"{out} is the folder of the model that is read: name another one")
    rank, ranks = processes()
    if replace and rank == 0 and not (out / STATE).is_file():
        for file in (*weight_files(out), *(out / name for name in (CARD, hf.CONFIG, INDEX))):
            file.unlink(missing_ok=True)
    if ranks > 1:
        dist.barrier()  # or another would still find it
    batches = [] if calibration is None else [rows.to(weights.device) for rows in calibration.split(batch)]
    if 0 < len(batches) < ranks:
        raise ValueError(f"{len(batches)} batches are too few for {ranks} processes: take a smaller batch")
    job = {"source": weights.digest(), "recipe": recipe.to_json(), "calibration": _digest(calibration),
           "batch": batch, "processes": ranks,
           "nanoq": __version__, "torch": torch.__version__}
    if recipe.embeddings != 16:
        weights.pack_tables(recipe.embeddings)
    mine, match = batches[rank::ranks], recipe.match_original
    porter = _Shards(weights, out, job, set(steps), match, len(mine), memory, rank, ranks)
    for stage in stages(checkpoint.model, mine, match, porter, recipe.precision):
        porter.take(stage.block, lambda stage=stage: quantize_block(stage, steps, recipe))
    return porter.finish(checkpoint, recipe, steps)


def open_folder(source: str | Path, device: torch.device | str = "cpu") -> tuple[Checkpoint, "_Weights"]:
    """A model of transformers whose blocks are empty, its tokeniser and its card; and the weights in its files.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: if it is quantised, or its files are not those that its configuration asks for.
    """
    if not hf.is_hugging_face(source):
        raise ValueError(f"'{source}' is no model of transformers, which alone are quantised one block at a time")
    transformers, folder = hf._transformers(), hf.fetched(source)
    with hf.quiet(transformers), hf._one_sentence(source, folder):
        config = hf._config(transformers, str(folder), folder)
    block = getattr(config, "quantization_config", None) or {}  # our own is in files without packed layers, too
    if hf.is_quantized(folder) or block.get("quant_method", hf.QUANT_METHOD) != hf.QUANT_METHOD:
        raise ValueError(f"'{source}' is quantised already: start from the model that it was made from")
    with hf._about(source):
        cls = hf._class_of(transformers, (config.architectures or ["a model that names no class"])[0])
        files = _files(folder)
        hf._check_layers(config, len(files))
        config.dtype = torch.float32  # in which each block is read, as all of it is in memory
        with hf.quiet(transformers):
            plain = _without_weights(cls, config).eval()
            hf.read_generation(plain, folder)
            split_experts(plain)
        model = HFModel(deepcopy(plain)).eval()
        weights = _Weights(folder, files, plain, model, torch.device(device))
    with hf.quiet(transformers), hf._one_sentence(source, folder):
        tokenizer = hf._tokenizer(transformers, str(folder), folder)
    return Checkpoint(model, tokenizer, {"source": str(source)} | hf.card_of(source)), weights


def _files(folder: Path) -> dict[str, tuple[Path, Tensor]]:
    """Of each tensor in a folder of safetensors its file and, without memory, its shape.

    Raises:
        ValueError: if there are none, or an index names files that are elsewhere.
    """
    files = weight_files(folder) or [folder / WEIGHTS]
    for file in files:
        if not file.is_file():
            raise ValueError(f"{folder} has no file {file.name}: the weights must be safetensors, whole or in shards")
    return {tensor: (file, shape) for file in files for tensor, shape in shapes_of(file).items()}


def _without_weights(cls: type[nn.Module], config) -> nn.Module:
    """A model of transformers with its buffers, which are small and often computed, but no memory for parameters."""
    def to_meta(_, __, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return None
        return nn.Parameter(parameter.to("meta"), parameter.requires_grad)

    handle = register_module_parameter_registration_hook(to_meta)
    try:
        with import_module("transformers.initialization").no_init_weights():
            model = cls(config)
        model.tie_weights()
    finally:
        handle.remove()
    if hasattr(model, "pooler"):
        model.pooler = None  # which an `HFModel` drops
    return model


class _Weights:
    """The weights of a model in its files, and how they get into it, a block at a time.

    Attributes:
        folder: where they lie.
        model: the model that they belong to.
        blocks: its blocks.
        names: what they are called in the model of transformers, as "model.layers.0".
    """

    def __init__(self, folder: Path, files: dict, plain: nn.Module, model: HFModel, device: torch.device):
        self.folder, self.files, self.model, self.device = folder, files, model, device
        self.blocks = list(model.blocks)  # which stay, when others stand in for them
        names = {id(module): name for name, module in model.model.named_modules()}
        self.names = [names[id(block)] for block in self.blocks]
        self.plain, self.places = plain, _places(plain, files)
        self.there: int | None = None  # the block that is loaded on demand
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(device)
        self._load_rest()

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Tensors by their names in the model of transformers, as the files have them; each holds its file open."""
        wanted = defaultdict(dict)
        for name in names:
            if name in self.places:
                wanted[self.files[self.places[name]][0]][name] = self.places[name]
        for file, parts in wanted.items():
            with safe_open(file, framework="pt") as opened:
                for name, place in parts.items():
                    yield name, opened.get_tensor(place)

    def load(self, index: int) -> None:
        """Fill block `index`, in float32.

        Raises:
            ValueError: if a tensor holds NaN or infinity.
        """
        block, prefix = deepcopy(self.plain.get_submodule(self.names[index])), f"{self.names[index]}."
        own = block.state_dict()
        tensors = {name.removeprefix(prefix): tensor.to(self.device, own[name.removeprefix(prefix)].dtype, copy=True)
                   for name, tensor in self.read(prefix + name for name in own)}
        if wrong := [prefix + name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
            raise ValueError(f"{some(wrong)} hold NaN or infinity")
        block.load_state_dict(tensors, strict=False, assign=True)
        _make_linear(block)
        self.blocks[index].load_state_dict(block.state_dict(), strict=False, assign=True)

    def empty(self, index: int) -> None:
        """Free what block `index` holds, packed or not."""
        for module in self.blocks[index].modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(parameter.to("meta"), requires_grad=False))
            if isinstance(module, QuantLayer):
                module.to("meta")

    def rest(self) -> Iterator[tuple[str, Tensor]]:
        """What files keep of each tensor outside the blocks: parameters as `stored` has them, and buffers."""
        names, state = dict(self.model.model.named_parameters()), self.model.model.state_dict()
        mine = [name for name in chain(names, dict(self.model.model.named_buffers()))
                if name in state and not name.startswith(tuple(f"{block}." for block in self.names))]
        found = set()
        for name, tensor in self.read(mine):
            found.add(name)
            yield name, stored(name, tensor) if name in names else tensor.to(state[name].dtype)
        yield from ((name, state[name]) for name in mine if name not in found)

    def _load_rest(self) -> None:
        """Fill what lies outside the blocks, but for the head, which no block needs."""
        model = self.model.model
        table, head = model.get_input_embeddings(), model.get_output_embeddings()
        old = dict(model.named_parameters(remove_duplicate=False))
        for name, tensor in self.rest():
            parameter, narrow = old.get(name), isinstance(table, nn.Embedding) and old.get(name) is table.weight
            if parameter is None:
                model.get_submodule(name.rpartition(".")[0])._buffers[name.rpartition(".")[2]] = tensor.to(self.device)
            elif narrow or head is None or parameter is not head.weight:
                tensor = tensor.to(self.device, tensor.dtype if narrow else torch.float32, copy=True)
                parameter = nn.Parameter(tensor, requires_grad=False)
                for other in (other for other, tied in old.items() if tied is old[name]):
                    setattr(model.get_submodule(other.rpartition(".")[0]), other.rpartition(".")[2], parameter)
        if isinstance(table, nn.Embedding):
            table.forward = partial(_by_rows, table, table.forward)

    def pack_tables(self, bits: int) -> None:
        """Pack the embedding tables and the head as `nanoq.quant.embeddings.pack_tables` does, from the files."""
        head = untied_head(self.model)
        for name, table in tables_of(self.model).items():
            with naming(name):
                packed_table(table, bits, self._from_file(table.weight)).stand_in(self.model, table.weight)
        if head:
            name, layer = head
            with naming(name):
                self.model.set_submodule(name, packed_head(self._from_file(layer.weight), layer.bias, bits))

    def _from_file(self, parameter: nn.Parameter) -> Tensor:
        """A parameter outside the blocks, as its file has it."""
        names = (name for name, other in self.model.model.named_parameters() if other is parameter)
        return next(tensor for _, tensor in self.read(names)).to(self.device)

    @contextmanager
    def on_demand(self) -> Iterator[None]:
        """Let the whole model run: each block, and the head, is there while it is needed."""
        ways = {block: partial(self._run, index) for index, block in enumerate(self.blocks)}
        head = self.model.model.get_output_embeddings()
        if isinstance(head, nn.Linear):  # and not packed
            ways[head] = partial(self._run_head, head)
        classes = {module: type(module) for module in ways}
        try:
            for module, way in ways.items():  # by the class: others put another `forward` into the module itself
                module.__class__ = _demanding(classes[module], way)
            yield
        finally:
            for module, own in classes.items():
                module.__class__ = own
            self._only(None)

    def _only(self, index: int | None) -> None:
        if index != self.there:
            if self.there is not None:
                self.empty(self.there)
            if index is not None:
                self.load(index)
            self.there = index

    def _run(self, index: int, forward: Callable, /, *args, **kwargs):
        self._only(index)
        return forward(*args, **kwargs)

    def _run_head(self, head: nn.Module, forward: Callable, *args, **kwargs):
        self._only(None)
        with _instead(head, self._from_file(head.weight).float()):
            return forward(*args, **kwargs)

    def digest(self) -> str:
        """What tells these files from others: 4 kB of each MB, and the configuration."""
        digest = hashlib.sha256((self.folder / hf.CONFIG).read_bytes())
        for path in sorted({path for path, _ in self.files.values()}):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            with open(path, "rb") as file:
                for start in range(0, size, 2**20):
                    file.seek(start)
                    digest.update(file.read(4096))
        return digest.hexdigest()


def _places(plain: nn.Module, files: dict[str, tuple[Path, Tensor]]) -> dict[str, str]:
    """Under which name the files have each tensor of a model: its own, without or with its base's, or an older one.

    Raises:
        ValueError: if a parameter is missing, has another shape, or is tied to one that differs in the files.
    """
    base, state, places, missing = f"{plain.base_model_prefix}.", plain.state_dict(), {}, []
    names = defaultdict(list)
    for name, parameter in plain.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    for name, tensor in chain(plain.named_parameters(), plain.named_buffers()):
        if name not in state:
            continue
        tied = names.get(id(tensor), [name])
        found = {place: None for own in tied for place in (own, base + own, own.removeprefix(base), _older(own))
                 if place in files}
        if not found and id(tensor) in names:
            missing.append(name)
        for place in found:
            if files[place][1].shape != tensor.shape:
                raise ValueError(f"{place} is of shape {tuple(files[place][1].shape)} in the files, and of "
                                 f"{tuple(tensor.shape)} in the model")
        if len(found) > 1 and not _all_equal(files, found):
            raise ValueError(f"{' and '.join(found)} are tied and differ: set tie_word_embeddings to false in "
                             f"{hf.CONFIG}")
        places |= dict.fromkeys(tied, next(iter(found))) if found else {}
    if missing:
        raise ValueError(f"the files have no {some(missing)}: quantise the model in memory")
    return places


def _older(name: str) -> str:
    """What the files of Mixtral and GPT-NeoX call a tensor."""
    for now, before in OLDER:
        name = name.replace(now, before)
    return name


def _all_equal(files: dict[str, tuple[Path, Tensor]], names: Iterable[str]) -> bool:
    tensors = []
    for name in names:
        with safe_open(files[name][0], framework="pt") as opened:
            tensors.append(opened.get_tensor(name))
    return all(torch.equal(tensor, tensors[0]) for tensor in tensors)


def _demanding(cls: type[nn.Module], way: Callable) -> type[nn.Module]:
    """A class whose modules run by a way that is given their own `forward`."""
    def forward(self, *args, **kwargs):
        return way(partial(cls.forward, self), *args, **kwargs)
    return type(cls.__name__, (cls,), {"forward": forward})


@contextmanager
def _instead(module: nn.Module, weight: Tensor) -> Iterator[None]:
    """Give a module another weight for a while."""
    old = module.weight
    module.weight = nn.Parameter(weight, requires_grad=False)
    try:
        yield
    finally:
        module.weight = old


def _by_rows(table: nn.Embedding, forward: Callable, tokens: Tensor, *args, **kwargs) -> Tensor:
    """Embed tokens by a narrow table, of which only the rows that they need are widened to float32."""
    rows, where = tokens.unique(return_inverse=True)
    padding, table.padding_idx = table.padding_idx, None  # of no effect without gradients
    try:
        with _instead(table, table.weight[rows].float()):
            return forward(where, *args, **kwargs)
    finally:
        table.padding_idx = padding


class _Shards(Porter):
    """Goes along with the walk: fills each block before, writes it as a shard after, and keeps what is in between."""

    def __init__(self, weights: _Weights, out: Path, job: dict, layers: set[str], original: bool,
                 batches: int, memory: int, rank: int, ranks: int):
        self.weights, self.out, self.layers, self.memory = weights, out, layers, memory
        self.model, self.rank, self.ranks, self.batches = weights.model, rank, ranks, batches
        self.share = share_statistics if ranks > 1 else None
        self.sides = (False, True) if original else (False,)
        self.state = _state(out, job)
        self.done = self.state["done"]
        self.start = self.done if self._can_start() else 0
        if not self.state["shards"]:
            with hf._about(weights.folder), weights.on_demand():
                prove(self.model)
            if not self.model.in_turn:
                name = type(self.model.model).__name__
                raise ValueError(f"blocks of {name} need more than the one before gives: quantise it in memory")
            self.state["layers"] |= {name: layer.layout for name, layer in packed_tables(self.model.model).items()}
            self._write(1, dict(weights.rest()))
        else:  # it was proven, and is in turn, when that was written
            self.model.proven, self.model.track.order = True, list(range(len(self.model.blocks)))
        self._together()

    def before(self, index: int) -> None:
        self.weights.load(index)
        round_others(self.model.blocks[index], self._mine(index))

    def take(self, block: nn.Module, quantize: Callable[[], list[LayerReport]]) -> None:
        """Quantise a block, or take what its shard has of it."""
        index = next(index for index, other in enumerate(self.model.blocks) if other is block)
        if index >= self.done:
            self.state["reports"] += [vars(report) | {"step": None} for report in quantize()]
            return
        tensors = load_file(self.out / self._name(index + 2))
        for name in self._mine(index):
            layer = f"{self.weights.names[index]}.{name}"
            parts = {key.removeprefix(f"{layer}."): tensor.to(self.weights.device, copy=True)
                     for key, tensor in tensors.items() if key.startswith(f"{layer}.")}
            block.set_submodule(name, layer_from_layout(self.state["layers"][layer], parts))

    def enter(self, model: HFModel, batches: list[Tensor], original: bool) -> Sequence[Call]:
        if self.start:
            return self._calls(model, batches, self.start - 1, self._from_files(self.start, original))
        return _Made(lambda number: model.enter(batches[number]), len(batches))

    def follow(self, model: HFModel, batches: list[Tensor], index: int, calls: Sequence[Call],
               outputs: Iterator[object], original: bool) -> Sequence[Call]:
        return self._calls(model, batches, index, self._kept(index, outputs, original))

    def _calls(self, model: HFModel, batches: list[Tensor], index: int, outputs: Sequence[object]) -> Sequence[Call]:
        """Calls that are made anew each time, as masks and rotary angles may take more memory than hidden states."""
        return _Made(lambda number: model.resume(batches[number], index, outputs[number]), len(batches))

    def _kept(self, index: int, outputs: Iterator[object], original: bool) -> Sequence[object]:
        """What block `index` gives, kept in memory or in files until the next has used it."""
        first = next(outputs, None)
        if first is None:
            return ()
        outputs = chain([first], outputs)
        size = sum(part.nbytes for part in _parts(first) if isinstance(part, Tensor))
        if size * self.batches * len(self.sides) <= self.memory:
            return list(outputs)
        place = self._between(index + 1, original)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for number, output in enumerate(outputs):
            _write_output(place / f"{number}.safetensors", output)
        return self._from_files(index + 1, original)

    def after(self, index: int) -> None:
        if index >= self.done:
            block, prefix = self.model.blocks[index], f"{self.weights.names[index]}."
            names, state = dict(block.named_parameters()), block.state_dict()
            tensors = {prefix + name: stored(prefix + name, state[name]) if name in names else state[name]
                       for name in (*names, *dict(block.named_buffers())) if name in state}
            self.state["layers"] |= {prefix + name: layout for name, layout in layouts_of(block).items()}
            self.state["done"] = index + 1
            self._write(index + 2, tensors)
        self.weights.empty(index)
        for original in self.sides:
            shutil.rmtree(self._between(index, original), ignore_errors=True)
        self._together()

    def finish(self, checkpoint: Checkpoint, recipe: Recipe, steps: dict[str, Step]) -> list[LayerReport]:
        """Write what belongs beside the shards; the reports of all blocks."""
        shards, out = self.state["shards"], self.out
        if self.rank == 0:
            size = sum(shard["bytes"] for shard in shards.values())
            index = {name: file for file, shard in shards.items() for name in shard["tensors"]}
            write_text(out / INDEX, json.dumps({"metadata": {"total_size": size}, "weight_map": index}, indent=1))
            card = with_layers(card_for(checkpoint, recipe.to_json()), self.state["layers"])
            write_card(out, card, {file: shard["sha256"] for file, shard in shards.items()})
            hf._beside(out, checkpoint)
            shutil.rmtree(out / BETWEEN, ignore_errors=True)
            (out / STATE).unlink()
        self._together()
        return [LayerReport(**report | {"step": steps[report["layer"]]}) for report in self.state["reports"]]

    def _mine(self, index: int) -> set[str]:
        """The layers of a block that are quantised, by their names in it."""
        return {name.removeprefix(f"blocks.{index}.") for name in self.layers if name.startswith(f"blocks.{index}.")}

    def _name(self, number: int) -> str:
        return f"model-{number:05d}-of-{len(self.model.blocks) + 1:05d}.safetensors"

    def _write(self, number: int, tensors: dict[str, Tensor]) -> None:
        """Write a shard, and then that it is there."""
        if self.rank:
            return
        file = self._name(number)
        save_tensors(self.out / file, {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()})
        self.state["shards"][file] = {"sha256": sha256(self.out / file), "tensors": sorted(tensors),
                                      "bytes": sum(tensor.nbytes for tensor in tensors.values())}
        write_text(self.out / STATE, json.dumps(self.state))

    def _between(self, index: int, original: bool) -> Path:
        """Where the inputs of a block are kept."""
        return self.out / BETWEEN / f"{self.rank}-{index}{'-original' if original else ''}"

    def _from_files(self, index: int, original: bool) -> Sequence[object]:
        place = self._between(index, original)
        return _Made(lambda number: _read_output(place / f"{number}.safetensors", self.weights.device), self.batches)

    def _can_start(self) -> bool:
        """Whether, in every process, the inputs of the first block that is not done lie in files."""
        whole = self.done == len(self.model.blocks) or all(
            (self._between(self.done, original) / f"{number}.safetensors").is_file()
            for original in self.sides for number in range(self.batches))
        answers = [whole] * self.ranks
        if self.ranks > 1:
            dist.all_gather_object(answers, whole)
        return all(answers)

    def _together(self) -> None:
        if self.ranks > 1:
            dist.barrier()


def _state(out: Path, job: dict) -> dict:
    """What the state in a folder says of a job, or that of one which begins.

    Raises:
        ValueError: if the folder holds a model, or the state of another job.
    """
    if (out / STATE).is_file():
        try:
            state = json.loads((out / STATE).read_text(encoding="utf-8"))
            differ = [key for key, value in json.loads(json.dumps(job)).items() if state["job"].get(key) != value]
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{out / STATE} is damaged ({error!r:.80}): remove {out}, and begin anew") from None
        if differ:
            raise ValueError(f"{out} holds the beginning of another model ({', '.join(differ)} differ): go on with "
                             "the same call, or name another folder")
        return state
    if held := [file for file in (CARD, hf.CONFIG, WEIGHTS, INDEX) if (out / file).exists()]:
        raise ValueError(f"{out} holds a model already ({', '.join(held)}): name another folder")
    return {"job": job, "done": 0, "shards": {}, "layers": {}, "reports": []}


def _digest(tokens: Tensor | None) -> str | None:
    return tokens if tokens is None else hashlib.sha256(tokens.cpu().contiguous().numpy().tobytes()).hexdigest()


class _Made(Sequence):
    """A sequence whose members are made anew each time: they are not kept."""

    def __init__(self, make: Callable[[int], object], count: int):
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int):
        if not 0 <= number < self.count:
            raise IndexError(number)
        return self.make(number)


def _parts(output: object) -> tuple:
    return output if isinstance(output, tuple) else (output,)


def _write_output(path: Path, output: object) -> None:
    """Write what a block gave, a tensor or a tuple of tensors and None, so that there is a whole file or none.

    Raises:
        OSError: if it cannot be written.
        ValueError: if it is something else.
    """
    parts = _parts(output)
    if not all(part is None or isinstance(part, Tensor) for part in parts):
        raise ValueError("the blocks give more than tensors, which can only be kept in memory: raise its limit")
    tensors = {str(number): part.cpu().contiguous().clone() for number, part in enumerate(parts) if part is not None}
    temporary, count = path.with_suffix(".tmp"), str(len(parts)) if isinstance(output, tuple) else ""
    try:
        save_file(tensors, temporary, {"count": count})
    except SafetensorError as error:
        raise OSError(f"cannot write {path} ({error}): make room, or write to another folder") from None
    temporary.replace(path)


def _read_output(path: Path, device: torch.device) -> object:
    with safe_open(path, framework="pt") as file:
        count = file.metadata()["count"]
        tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118 (not a dict)
    return tuple(tensors.get(str(number)) for number in range(int(count))) if count else tensors["0"]
