"""What models are measured with: WikiText-2 on GPTQ's protocol or with masks, and reviews by a probe on features."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanoq.decoding import decoded_once
from nanoq.hf.model import HFModel
from nanoq.hub import hub_rows, local_file
from nanoq.lm.corpus import load_corpus
from nanoq.lm.evaluate import Watch, evenly_spread, row_losses
from nanoq.lm.generation import check_sampling, next_token
from nanoq.lm.model import check_tokens
from nanoq.progress import progress
from nanoq.quant.calibrate import sample_windows
from nanoq.running import device_of, evaluating

# Of each set of reviews its repository on the hub. Local files are NAME_train.jsonl and NAME_test.jsonl.
REVIEWS = {"imdb": "stanfordnlp/imdb", "rotten-tomatoes": "cornell-movie-review-data/rotten_tomatoes"}


CHARACTERS_PER_TOKEN = 16  # more than any text has in the mean


# ---- text and tokens ----


def encode(tokenizer, text: str) -> Tensor:
    """The tokens of a text, of any length: int64 (N,).

    Raises:
        ValueError: if the model came without a tokeniser.
    """
    return torch.tensor(token_ids(tokenizer, [text])[0], dtype=torch.long)


def sample_text(tokenizer, text: str, context: int, count: int = 128, seed: int = 0) -> Tensor:
    """Random windows (count, context) of a text to calibrate on. Of a long one, only what is used is encoded.

    Raises:
        ValueError: if the text is shorter than one window.
    """
    if len(text) < CHARACTERS_PER_TOKEN * count * context:
        return sample_windows(encode(tokenizer, text), context, count, seed)
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(text) - CHARACTERS_PER_TOKEN * context, (count,), generator=generator).tolist()
    rows = []
    for start in starts:
        length, ids = CHARACTERS_PER_TOKEN * context // 2, []
        while len(ids) < context and start + length // 2 < len(text):  # until it is enough, from a word's beginning on
            part = text[start:start + length]
            ids, length = token_ids(tokenizer, [part.partition(" ")[2] or part])[0], 2 * length
        rows.append(ids[:context])
    if short := [row for row in rows if len(row) < context]:
        raise ValueError(f"a window of {len(short[0])} tokens is too short for one of {context}: take a longer text")
    return torch.tensor(rows)


def wikitext(tokenizer, context: int = 2048, split: str = "test") -> Tensor:
    """WikiText-2 as GPTQ's authors cut it: its lines joined by blank lines, in windows (W, context) of tokens.

    For models that were trained with a token that begins a text, each window does, by `start_windows`.
    From the hub "train" and "test" are the splits of those names. Where `NANOQ_DATA` has the validation split
    (`wikitext2_valid.tokens`), they are its first 90 % and its last 10 %: good for comparisons, but not with published
    numbers.

    Raises:
        FileNotFoundError: if it cannot be fetched; the message says how to get it.
        ValueError: if the split is none, or there is not a single window.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    if local_file("wikitext2_valid.tokens"):
        corpus = load_corpus("wikitext-2")
        text = corpus.train if split == "train" else corpus.valid + corpus.test
        lines = [line if line.strip() else "" for line in text.splitlines(keepends=True)]  # as on the hub
    else:
        otherwise = ("set NANOQ_DATA to a folder with wikitext2_valid.tokens; or cut a text of your own with `encode` "
                     "and `gptq_windows`")
        lines = [row["text"] for row in
                 hub_rows("wikitext-2", "Salesforce/wikitext", "wikitext-2-raw-v1", split, otherwise)]
    return start_windows(tokenizer, gptq_windows(encode(tokenizer, "\n\n".join(lines)), context))


def gptq_windows(tokens: Tensor, context: int) -> Tensor:
    """Cut tokens (N,) into windows (W, context) that share none; what does not fill one is dropped.

    Raises:
        ValueError: if there is not a single window.
    """
    if len(tokens) < context:
        raise ValueError(f"{len(tokens)} tokens are too few for one window of {context}")
    return tokens[: len(tokens) // context * context].view(-1, context)


def start_windows(tokenizer, windows: Tensor) -> Tensor:
    """Windows (W, T) that begin as the model's texts did in training: with the BOS token, if its tokeniser adds one.

    It takes the place of the first token, which is not predicted on the protocol of GPTQ: losses are of the same tokens
    with it and without. Gemma's perplexity is far too high without one. llama.cpp measures with it, too; published
    numbers of GPTQ's protocol have it in the first window alone.
    """
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is None or token_ids(tokenizer, ["a"])[0][0] != bos:
        return windows
    return torch.cat((torch.full_like(windows[:, :1], bos), windows[:, 1:]), 1)


def gptq_losses(model: nn.Module, windows: Tensor, limit: int | None = None, batch: int = 1,
                watch: Watch | None = None) -> Tensor:
    """Mean cross-entropy in each window (W, T) of its T - 1 predictions, in nats a token: float64 (W,).

    `nanoq.lm.perplexity` of it is the perplexity on the protocol of GPTQ (Frantar et al. 2022), which nearly every
    paper since has used. `nanoq.lm.window_losses` differs by predicting the first token of each window too.

    Args:
        model: maps tokens (B, T) to logits (B, T, V); is put into evaluation mode and back.
        windows: tokens (W, T).
        limit: take this many windows, evenly spread, instead of all.
        batch: windows in a forward pass.
        watch: as in `nanoq.lm.evaluate.row_losses`.

    Raises:
        ValueError: if the model does not predict the next token.
    """
    if getattr(model, "kind", "causal-lm") != "causal-lm":
        raise ValueError(f"a model of kind '{model.kind}' predicts no next token, and so has no perplexity"
                         + "; its pseudo-perplexity is by `masked_losses`" * (model.kind == "masked-lm"))
    return row_losses(model, windows[evenly_spread(len(windows), limit)], batch, watch)


@torch.inference_mode()
def stream_tokens(model: HFModel, prompt: Tensor, temperature: float, top_k: int | None, seed: int) -> Iterator[int]:
    """Continue the tokens `prompt` (T,), one id after another, until the context is full.

    Keys and values are kept where the model has a cache for them; otherwise all of the text is read each time.

    Raises:
        ValueError: if the prompt does not fit the context, or as `nanoq.lm.generation.stream`.
    """
    check_sampling(temperature, top_k)
    if not 0 < len(prompt) <= model.config.context:
        raise ValueError(f"a prompt of {len(prompt)} tokens does not fit a context of {model.config.context}")
    check_tokens(prompt, model.vocabulary)
    from nanoq.hf.llama_step import LlamaStep, fits  # numba is slow to import

    generator, length = torch.Generator().manual_seed(seed), len(prompt)
    reader = LlamaStep(model.model) if fits(model.model) else Reader(model)
    logits = reader.begin(prompt) if length < model.config.context else None
    while length < model.config.context:
        token = int(next_token(logits, temperature, top_k, generator))
        yield token
        length += 1
        logits = reader(token) if length < model.config.context else None


class Reader:
    """Does what a `LlamaStep` does for any model."""

    def __init__(self, model: HFModel):
        self.model = model

    def begin(self, tokens: Tensor) -> Tensor:
        """Begin a text with tokens (T,): logits (V,) of what comes after them."""
        self.history, self.cache = tokens[None].to(self.model.device), None
        return self._read(self.history)

    def __call__(self, token: int) -> Tensor:
        """Read one more token: logits (V,) of what comes after it."""
        self.history = F.pad(self.history, (0, 1), value=token)
        return self._read(self.history if self.cache is None else self.history[:, -1:])

    def _read(self, tokens: Tensor) -> Tensor:
        output = self.model.model(input_ids=tokens, past_key_values=self.cache, use_cache=True)
        self.cache = getattr(output, "past_key_values", None)
        return output.logits[0, -1].float().cpu()


# ---- masked language models ----


def enclose_windows(tokenizer, windows: Tensor) -> Tensor:
    """Windows (W, T) that begin and end as single texts did in training: [CLS] and [SEP] replace the outer tokens.

    Nothing changes where the tokeniser puts none around a text.

    Raises:
        ValueError: if there is no tokeniser.
    """
    text, enclosed = token_ids(tokenizer, ["a"])[0], windows.clone()
    for place, special in ((0, tokenizer.cls_token_id), (-1, tokenizer.sep_token_id)):
        if special is not None and text[place] == special:
            enclosed[:, place] = special
    return enclosed


def text_tokens(tokenizer, rows: Tensor) -> Tensor:
    """Which tokens (B, T) are text, and not [CLS], [SEP], padding and the like; an unknown word is: bool (B, T)."""
    return torch.isin(rows, torch.tensor(sorted({*tokenizer.all_special_ids} - {tokenizer.unk_token_id}))
                      .to(rows), invert=True)


def fill_losses(model: HFModel, tokenizer, rows: Tensor, chosen: Tensor) -> Tensor:
    """Cross-entropy of the chosen tokens when all of them are masked, in nats: (number of them,), row by row.

    Padding is hidden from the model. Where the model's head allows, logits are made of the chosen tokens alone: with
    BERT's vocabulary those of all tokens cost more than a small encoder.

    Args:
        model: a masked language model.
        tokenizer: the model's, with a mask token.
        rows: tokens (B, T).
        chosen: bool (B, T).

    Raises:
        ValueError: if the model fills no masks, or its tokeniser has none.
    """
    if model.kind != "masked-lm":
        raise ValueError(f"a model of kind '{model.kind}' fills no masks, and so has no pseudo-perplexity")
    if getattr(tokenizer, "mask_token_id", None) is None:
        raise ValueError("the model's tokeniser has no mask token")
    read = rows.masked_fill(chosen, tokenizer.mask_token_id)
    padded = tokenizer.pad_token_id is not None and bool((rows == tokenizer.pad_token_id).any())
    more = {"attention_mask": (rows != tokenizer.pad_token_id).long()} if padded else {}
    head = model.model.get_output_embeddings()
    hook = head and head.register_forward_pre_hook(
        lambda _, args: (args[0][chosen],) if args and args[0].shape[:2] == chosen.shape else None)
    try:
        logits = model(read, **more)
    finally:
        if hook:
            hook.remove()
    if logits.shape[:2] == chosen.shape:
        logits = logits[chosen]
    return F.cross_entropy(logits.float(), rows[chosen], reduction="none")


@torch.inference_mode()
def masked_losses(model: HFModel, tokenizer, windows: Tensor, every: int = 1, batch: int = 32) -> Tensor:
    """Loss of a masked language model in each window (W, T), each token masked by itself, in nats: float64 (W,).

    `nanoq.lm.perplexity` of it is the pseudo-perplexity of Salazar et al. 2020 (arXiv 1910.14659, section 2.3): exp of
    the mean loss of a token, of which all the others of its window are seen, those after it, too. It therefore
    compares with no perplexity of a model that writes. Special tokens and padding are not masked, and do not count.

    A window's loss is the sum over its tokens, divided by the mean number of tokens: the mean over windows is the mean
    over tokens, also where padding makes some windows short.

    Args:
        model: a masked language model; is put into evaluation mode and back.
        tokenizer: the model's.
        windows: tokens (W, T), with the special tokens that the model was trained with; see `enclose_windows`.
        every: mask only each token of this number, counted through all windows; the rest is read, not measured.
        batch: rows in a forward pass, one for each masked token.

    Raises:
        ValueError: if `every` is not positive, there is no text in the windows, or as `fill_losses`.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, not {every}")
    text = text_tokens(tokenizer, windows)
    numbers, places = (text & ((text.flatten().cumsum(0).view_as(windows) - 1) % every == 0)).nonzero(as_tuple=True)
    if not len(numbers):
        raise ValueError("there is no text in the windows")
    device, losses = model.device, []
    with evaluating(model), decoded_once(model):
        for part in progress(torch.arange(len(numbers)).split(batch), desc="masks", unit="batch", leave=False, delay=1):
            chosen = F.one_hot(places[part], windows.shape[1]).bool()
            losses.append(fill_losses(model, tokenizer, windows[numbers[part]].to(device), chosen.to(device)).cpu())
    sums = torch.zeros(len(windows), dtype=torch.float64).index_add(0, numbers, torch.cat(losses).double())
    return sums * len(windows) / len(numbers)


# ---- reviews ----


@dataclass(frozen=True)
class Reviews:
    """Labelled film reviews in two splits, as many good as bad ones in each.

    Attributes:
        name: what they are called.
        train, test: the texts.
        train_labels, test_labels: 1 for a good review and 0 for a bad one.
        source: where they came from, in one line.
    """

    name: str
    train: list[str]
    train_labels: list[int]
    test: list[str]
    test_labels: list[int]
    source: str


def reviews(name: str = "imdb", train: int | None = 2000, test: int | None = 1000, seed: int = 0) -> Reviews:
    """Load reviews, "imdb" (long) or "rotten-tomatoes" (a sentence each): a random balanced part of each split.

    They are looked for in the folder that `NANOQ_DATA` names (`imdb_train.jsonl`, `imdb_test.jsonl`, a line
    {"text": …, "label": 0 or 1} for each review), then on the Hugging Face hub.

    Args:
        name: which.
        train: how many to train on; None for as many as there are.
        test: how many to test on, likewise.
        seed: of the choice.

    Raises:
        FileNotFoundError: if the name is unknown, or they cannot be fetched; the message says how to get them.
        ValueError: if a number is odd or not positive, there are too few reviews, or a local file is damaged.
    """
    if name not in REVIEWS:
        raise FileNotFoundError(f"no reviews '{name}': give one of {', '.join(REVIEWS)}")
    files = [f"{name.replace('-', '_')}_{split}.jsonl" for split in ("train", "test")]
    paths = [local_file(file) for file in files]
    if all(paths):
        rows, source = [list(_read_lines(path)) for path in paths], str(paths[0].parent)
    else:
        otherwise = (f"set NANOQ_DATA to a folder with {' and '.join(files)}; or write such files of reviews of your "
                     'own, a line {"text": …, "label": 0 or 1} for each')
        rows = [[(row["text"], row["label"]) for row in hub_rows(name, REVIEWS[name], None, split, otherwise)]
                for split in ("train", "test")]
        source = f"huggingface.co/datasets/{REVIEWS[name]}"
    splits = _balanced(rows[0], train, seed), _balanced(rows[1], test, seed)
    (train_texts, train_labels), (test_texts, test_labels) = (zip(*split, strict=True) for split in splits)
    return Reviews(name, list(train_texts), list(train_labels), list(test_texts), list(test_labels), source)


def _read_lines(path) -> Iterator[tuple[str, int]]:
    lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")  # JSON allows U+2028 within a line
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            yield row["text"], int(row["label"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number} of {path} is no review ({error!r}): copy the file again") from None


def _balanced(rows: list[tuple[str, int]], count: int | None, seed: int) -> list[tuple[str, int]]:
    """As many rows of each label, in random order; the labels take turns."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    of_label = [[rows[i] for i in order if rows[i][1] == label] for label in (0, 1)]
    there = 2 * min(map(len, of_label))
    count = there if count is None else count
    if count not in range(2, there + 1, 2):
        raise ValueError(f"{count} reviews, half good and half bad, are not there: the number is to be even, at most "
                         f"{there}")
    bad, good = of_label
    return [row for pair in zip(bad, good, strict=False) for row in pair][:count]


# ---- features ----


@torch.no_grad()
def features(
    model: HFModel, tokenizer, texts: Sequence[str], batch: int = 32, max_length: int = 256
) -> Tensor:
    """The mean of the last hidden states over the tokens of each text: (N, width).

    Args:
        model: of any kind; the head is left out.
        tokenizer: the model's.
        texts: N of them.
        batch: texts in a forward pass; those of like length go together.
        max_length: tokens of a text that are read.

    Raises:
        ValueError: if there are no texts, one has no tokens, or the model came without a tokeniser.
    """
    ids = token_ids(tokenizer, texts, min(max_length, model.config.context))
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    parts = [order[start : start + batch] for start in range(0, len(order), batch)]
    with decoded_once(model):
        pooled = [_pooled(model.eval(), tokenizer, [ids[i] for i in part])
                  for part in progress(parts, desc="features", unit="batch", leave=False, delay=1)]
    return torch.cat(pooled)[torch.tensor(order).argsort()]


def fine_tune(
    model: HFModel, tokenizer, texts: Sequence[str], labels: Sequence[int], *, epochs: int = 1, batch: int = 16,
    lr: float = 5e-5, max_length: int = 128, seed: int = 0,
) -> list[float]:
    """Train a model, in place, so that a linear head on its features tells two labels apart.

    The head starts as the linear probe of the features that there are, so that its first, wrong gradients do not spoil
    them (Kumar et al. 2022, arXiv 2202.10054). It is not kept: fit a probe to the features of the trained model.

    Args:
        model: not quantised.
        tokenizer: the model's.
        texts: N of them.
        labels: N of them, 0 or 1.
        epochs: times that each text is seen.
        batch: texts in a step.
        lr: of AdamW, falling to 0 linearly.
        max_length: tokens of a text that are read.
        seed: of the order.

    Returns:
        The loss in each step, in nats.

    Raises:
        ValueError: as `features`, and if there is not a label for each text, or they are not of two kinds.
    """
    if len(texts) != len(labels) or set(labels) != {0, 1}:
        raise ValueError(f"{len(texts)} texts need as many labels, 0 or 1, and some of each")
    # In evaluation mode from here on: without dropout, which would draw from the global generator.
    probe = linear_probe(features(model, tokenizer, texts, max_length=max_length), labels)
    device = device_of(model)
    head, bias = (torch.tensor(part, dtype=torch.float32, device=device, requires_grad=True)
                  for part in (probe.coef_[0], probe.intercept_[0]))
    ids = token_ids(tokenizer, texts, min(max_length, model.config.context))
    optimizer = torch.optim.AdamW([*model.parameters(), head, bias], lr)
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(len(ids), generator=generator) for _ in range(epochs)]).split(batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(order))
    targets, losses = torch.tensor(labels, dtype=torch.float32, device=device), []
    for rows in progress(order, desc="fine-tune", unit="step"):
        logits = _pooled(model, tokenizer, [ids[i] for i in rows]) @ head + bias
        loss = F.binary_cross_entropy_with_logits(logits, targets[rows.to(device)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def token_ids(tokenizer, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
    """The token ids of each text, cut at `max_length`.

    Raises:
        ValueError: if there are no texts, one has no tokens, or the model's tokeniser is missing or damaged.
    """
    if tokenizer is None:
        raise ValueError("the model came without a tokeniser: put its tokenizer.json into the model's folder")
    cut = {} if max_length is None else {"truncation": True, "max_length": max_length}
    try:
        ids = tokenizer(list(texts), verbose=False, **cut).input_ids if texts else []
    except Exception as error:  # of no narrower kind
        raise ValueError(f"the model's tokeniser fails ({error!s:.200}): copy its files again") from None
    if not ids or not all(ids):
        raise ValueError("there are no texts, or one of them has no tokens")
    return ids


def _pooled(model: HFModel, tokenizer, ids: list[list[int]]) -> Tensor:
    """The mean of the last hidden states over each text: (B, width)."""
    device = device_of(model)
    padding = tokenizer.pad_token_id or 0  # GPT-2 has none; the mask hides what stands there
    rows = [torch.tensor(row) for row in ids]
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding).to(device)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
    hidden, weight = model.hidden(tokens, mask).float(), mask.unsqueeze(-1)
    return (hidden * weight).sum(1) / weight.sum(1)


def linear_probe(features: Tensor, labels: Sequence[int]):
    """Fit a linear classifier to features (N, width): scikit-learn's `LogisticRegression`.

    Its regularisation goes by the mean variance of the columns. They are not standardised one by one: MiniLM has two
    that vary by 1e-33, and quantisation by more, so that a probe which divides by that is at chance level afterwards.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import

    strength = 0.01 / float(features.var(0).mean())
    return LogisticRegression(C=strength, max_iter=1000).fit(features.cpu().numpy(), list(labels))


def probe_accuracy(probe, features: Tensor, labels: Sequence[int]) -> float:
    """The share of features (N, width) that a probe gives the right label."""
    return float(probe.score(features.cpu().numpy(), list(labels)))
