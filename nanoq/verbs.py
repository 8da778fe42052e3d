"""Eight verbs for every model there is: our GPT, image classifiers and models of transformers, quantised or not.

For example::

    checkpoint = nanoq.load("tales-2.7m")
    small = nanoq.quantize(checkpoint, "gptq", bits=3)
    print(nanoq.evaluate(small, against=checkpoint))
    nanoq.save("my-3-bit-model", small)
"""

from copy import deepcopy
from itertools import islice
from pathlib import Path

from torch import Tensor

from nanoq import store
from nanoq.compress.steps import Prune
from nanoq.hf.checkpoint import from_transformers, is_hugging_face, is_quantized
from nanoq.lm.corpus import Corpus
from nanoq.lm.generation import stream
from nanoq.lm.model import GPT
from nanoq.mixed import mixed_recipe
from nanoq.quant.embeddings import usual_width
from nanoq.quant.export import export_model
from nanoq.quant.qlinear import entropy_code
from nanoq.quant.quantize import check_unchanged, quantize_model
from nanoq.quant.recipe import OF_ALL, Recipe, Round, has_seed, own_bits
from nanoq.quant.rotation import rotate as rotate_model
from nanoq.running import device_of
from nanoq.store import Checkpoint
from nanoq.tasks import Evaluation, task_for

__all__ = ["compare", "evaluate", "export", "generate", "load", "prune", "quantize", "save"]


def load(name_or_path: str | Path, kind: str | None = None) -> Checkpoint:
    """Load a model: a shipped name, a folder of nanoq or of transformers, or a name on the Hugging Face hub.

    Models that GPTQ, AWQ or compressed-tensors (`pack-quantized`) have quantised keep the quantised weights of their
    files, bit for bit.

    Args:
        name_or_path: as "tales-2.7m", "digits-resnet", "gpt2", "facebook/opt-125m", or a path.
        kind: of a model of transformers, a key of `nanoq.hf.KINDS`; by default what its configuration says.

    Raises:
        FileNotFoundError: if there is no such model; the message says how to get it.
        ValueError: if it is damaged, quantised in a way that nanoq does not read, or nanoq cannot go through it block
            by block.
    """
    if is_hugging_face(name_or_path) and not is_quantized(name_or_path):
        return from_transformers(name_or_path, kind)
    if kind is not None:
        raise ValueError(f"'{name_or_path}' is what its card says: a kind is chosen when the original is loaded")
    return store.load(name_or_path)


def quantize(
    checkpoint: Checkpoint, method: str | Recipe = "gptq", bits: int | None = None, *,
    average_bits: float | None = None, data: str | Path | Corpus | Tensor | None = None, windows: int | None = None,
    context: int | None = None, batch: int = 16, seed: int = 0, in_place: bool = False, rotate: bool = False, **options,
) -> Checkpoint:
    """A quantised copy of a model, calibrated on text or images of its own kind; its card keeps the recipe.

    Args:
        checkpoint: not quantised yet.
        method: the name of a rounding method, or a whole recipe.
        bits: 2 to 8; 4 where the grid has no width of its own.
        average_bits: mixed precision instead: as small as this width everywhere would be, each layer 2 to 8 bits by its
            GPTQ error.
        data: what to calibrate on: a name or path for `nanoq.tasks.task_for`, or windows of tokens or images.
        windows: how many windows of text, or images, to calibrate on: by default 128, and of text for models of
            transformers 65,536 tokens.
        context: tokens in a window: by default as many as the model can read, at most 2,048, and 128 for causal
            language models of transformers.
        batch: windows that go through a block at once.
        seed: of the choice of windows, of a rotation, and of a method that has one.
        in_place: whether to change the checkpoint itself, which takes half the memory.
        rotate: whether the model is first turned by a random Hadamard matrix (`nanoq.quant.rotate`), which leaves what
            it computes alone: a GPT, or a model of Llama's kind.
        options: of `Recipe` and `Round`, as group_size=64, act_order=True, true_sequential=True; or rate=2.25, for
            codes that are entropy-coded to so many bits per weight (`nanoq.quant.entropy_grid`). Embedding tables and
            heads of causal language models of transformers get 8 bits (`embeddings=16` leaves them in float16).

    Raises:
        ValueError: as `nanoq.quant.quantize_model` and `nanoq.quant.rotate`; or if an option beside a recipe is none of
            this function's.
    """
    if average_bits is not None and (isinstance(method, Recipe) or bits is not None):
        raise ValueError("average_bits writes a recipe of its own: not with bits, and not with a recipe")
    check_unchanged(checkpoint.model)  # before a corpus is fetched
    recipe = method
    if isinstance(method, Recipe):
        if spare := [*options, *(["bits"] if bits is not None else [])]:
            raise ValueError(f"a recipe says what to do to each layer: {', '.join(spare)} can not be given beside it")
    else:
        options = {"embeddings": usual_width(checkpoint.model)} | options | ({"seed": seed} if has_seed(method) else {})
        recipe = recipe_for(method, bits, **options)
    calibration = data if isinstance(data, Tensor) else None
    if calibration is None and (recipe.needs_calibration or average_bits is not None):
        calibration = task_for(checkpoint, data, context=context).calibration(windows, seed)
    new = checkpoint if in_place else Checkpoint(deepcopy(checkpoint.model), checkpoint.tokenizer, checkpoint.card)
    if rotate:
        rotate_model(new.model, seed)
        new.card = new.card | {"rotation": {"seed": seed}}
    device = device_of(new.model)
    calibration = None if calibration is None else calibration.to(device)
    if average_bits is not None:
        if getattr(new.model, "kind", "causal-lm") != "causal-lm" or not hasattr(new.model.config, "context"):
            raise ValueError("average_bits goes by the loss of the next token, which this model does not predict")
        whole = {name: options.pop(name) for name in OF_ALL if name in options}  # options of a recipe, not of a step
        mixed = mixed_recipe(new.model, calibration[:16], average_bits, method, **options)
        recipe = Recipe(mixed.default, rules=mixed.rules, **whole)
    reports = quantize_model(new.model, recipe, calibration, batch)
    card = new.card | {"recipe": recipe.to_json()} | calibration_entry(data, calibration, seed)
    return Checkpoint(new.model, new.tokenizer, card, reports)


def calibration_entry(data: str | Path | Corpus | Tensor | None, calibration: Tensor | None, seed: int) -> dict:
    """What a card says of the text or images that a model was calibrated on; nothing if it was not."""
    if calibration is None:
        return {}
    named = None if isinstance(data, Tensor | Corpus) else data and str(data)
    return {"calibration": {"data": named, "windows": len(calibration), "of": list(calibration.shape[1:]),
                            "seed": seed}}


def recipe_for(method: str, bits: int | None, **options) -> Recipe:
    """The recipe of a method: at 4 bits where neither `bits` nor the grid says otherwise, entropy-coded at a `rate`."""
    if options.get("rate") is not None:
        options = {"grid": "entropy-coded"} | options
    return Recipe(method, bits=bits or own_bits(options.get("grid", "affine")) or 4, **options)


def prune(
    checkpoint: Checkpoint, method: str = "sparsegpt", sparsity: float = 0.5, pattern: str = "row", bits: int = 16,
    **options,
) -> Checkpoint:
    """A pruned copy of a model, its zeros left out of the file.

    Args:
        checkpoint: not quantised yet.
        method: as in `nanoq.compress.Prune`.
        sparsity: share of the weights that becomes 0.
        pattern: "row", "matrix" or "N:M".
        bits: of the weights that stay: with fewer than 16 they are rounded by GPTQ, in the same walk as SparseGPT.
        options: data, windows, context, batch, seed and in_place, as in `quantize`.
    """
    steps = [Prune(method, sparsity, pattern)] + ([Round("gptq", bits)] if bits != 16 else [])
    return quantize(checkpoint, Recipe(*steps), **options)


def evaluate(
    checkpoint: Checkpoint, data: str | Path | Corpus | None = None, *, windows: int | None = 128,
    context: int | None = None, against: Checkpoint | None = None,
) -> Evaluation:
    """Measure a model on held-out text, images or reviews; with `against`, the loss that it adds to another's.

    Args:
        checkpoint: to measure.
        data: as in `nanoq.tasks.task_for`.
        windows: how many held-out windows, images or reviews; None for all.
        context: tokens in a window.
        against: a model with the same tokeniser, for a paired comparison with a confidence interval.

    Raises:
        ValueError: if the two models have different tokenisers, or as the task does.
    """
    ours, others = _vocabulary(checkpoint), against and _vocabulary(against)
    if ours is not None and others is not None and ours != others:
        raise ValueError("the two models have different tokenisers: their losses on a text do not compare")
    task = task_for(checkpoint, data, windows, context)
    return task.evaluate(checkpoint.model, None if against is None else against.model)


def _vocabulary(checkpoint: Checkpoint) -> object:
    """What the tokens of a checkpoint stand for; None if it has no tokeniser."""
    tokenizer = checkpoint.tokenizer
    return tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else getattr(tokenizer, "characters", None)


def compare(checkpoint: Checkpoint | str | Path, data: str | Path | None = None, **options):
    """The leaderboard of a model at several widths by several methods: `nanoq.teach.leaderboard.compare`."""
    from nanoq.teach.leaderboard import compare as run  # matplotlib is slow to import

    return run(checkpoint, data, **options)


def generate(
    checkpoint: Checkpoint, prompt: str, length: int = 200, *, temperature: float = 0.8, top_k: int | None = None,
    seed: int = 0,
) -> str:
    """The prompt and what a language model makes of it: `length` more characters, or tokens, or up to its end."""
    return prompt + "".join(continuation(checkpoint, prompt, length, temperature, top_k, seed))


def continuation(checkpoint: Checkpoint, prompt: str, length: int, temperature: float, top_k: int | None, seed: int):
    """The pieces of text that a language model adds to a prompt, one after the other.

    Raises:
        ValueError: if the model writes no text, or has no tokeniser, or the length is negative.
    """
    if length < 0:
        raise ValueError(f"length must be at least 0, not {length}")
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    if isinstance(model, GPT):
        for token in islice(stream(model, tokenizer.encode(prompt), temperature=temperature, top_k=top_k, seed=seed),
                            length):
            yield tokenizer.decode([token])
        return
    if getattr(model, "kind", None) != "causal-lm":
        raise ValueError(f"a {type(getattr(model, 'model', model)).__name__} writes no text: generate takes a GPT or a "
                         "causal language model")
    from nanoq.hf.tasks import encode, stream_tokens  # not every user has transformers

    generation = getattr(model.model, "generation_config", None)
    ends = getattr(generation, "eos_token_id", None)
    ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    read = encode(tokenizer, prompt)
    tokens, text = read.tolist(), tokenizer.decode(read)  # with them, as decoders may drop a space at the beginning
    for token in islice(stream_tokens(model, read, temperature, top_k, seed), length):
        if token in ends:
            return
        tokens.append(token)
        whole = tokenizer.decode(tokens)  # several tokens may make one character
        if not whole.endswith("\N{REPLACEMENT CHARACTER}"):
            yield whole[len(text):]
            text = whole


def save(folder: str | Path, checkpoint: Checkpoint, *, entropy: bool = False) -> Path:
    """Write a model to a folder, as small as it was made; `load` gives it again, bit for bit.

    Args:
        folder: is made if it is not there.
        checkpoint: of any kind.
        entropy: whether to entropy-code the codes of packed layers, which makes a file smaller and loses nothing.
    """
    if entropy:
        checkpoint = Checkpoint(deepcopy(checkpoint.model), checkpoint.tokenizer, checkpoint.card)
        entropy_code(checkpoint.model)
    return store.save(folder, checkpoint)


def export(folder: str | Path, checkpoint: Checkpoint, format: str = "compressed-tensors") -> Path:
    """Write a quantised model for other programs: "compressed-tensors", "gptq" or "gguf".

    Raises:
        ValueError: if the format has no room for the model or a layer of it.
    """
    return export_model(folder, checkpoint, format)
