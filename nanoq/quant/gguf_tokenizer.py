"""The vocabulary of a tokeniser of transformers as llama.cpp keeps it in a GGUF file.

Two kinds. Byte-level BPE ("gpt2" there) keeps tokens and merges, and the *name* of the rule that cuts text into words
before the merges: llama.cpp has those rules in its source, so that only some can be written. SentencePiece's BPE
("llama") keeps tokens and their scores: it joins, again and again, the neighbours whose union has the highest score. A
tokenizer.json has merges in the place of scores. They say the same if every way to cut a token into two tokens is a
merge, and those of one token follow each other; that is looked at.

Source: `llama-vocab.cpp` of llama.cpp, and `gguf-py`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of tokens
BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {_CONTRACTIONS + r"\p{N}{1,3}" + _REST: "llama-bpe", _CONTRACTIONS + r"\p{N}" + _REST: "qwen2"}


@dataclass
class Vocabulary:
    """What a GGUF file says of a tokeniser.

    Attributes:
        model: "gpt2" or "llama".
        pre: the name of the rule that cuts text into words.
        tokens: by their ids, as many as the model has.
        types: of the tokens.
        merges: of byte-level BPE, as "a b".
        scores: of SentencePiece.
        special: ids by "bos", "eos", "unk" and "pad".
        adds: whether "bos", "eos" and "space_prefix" are added to a text.
        chat_template: of Jinja.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    special: dict[str, int] = field(default_factory=dict)
    adds: dict[str, bool] = field(default_factory=dict)
    chat_template: str | None = None

    def write(self, writer) -> None:
        """Add everything to a `GGUFWriter`."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)  # of which nothing is written where there are none
        writer.add_token_scores(self.scores)
        for name, number in self.special.items():
            getattr(writer, f"add_{name}_token_id")(number)
        for name, value in self.adds.items():
            getattr(writer, {"space_prefix": "add_add_space_prefix"}.get(name, f"add_add_{name}_token"))(value)
        if self.chat_template:
            writer.add_chat_template(self.chat_template)


def vocabulary_of(tokenizer, size: int) -> Vocabulary:
    """The vocabulary of a tokeniser of transformers for a model with `size` tokens.

    Raises:
        ValueError: if llama.cpp has no such tokeniser, or there are more tokens than the model has.
    """
    refuse = _refusal(tokenizer)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise refuse("it is not one of the package tokenizers")
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model, added = content["model"], content.get("added_tokens") or []
    if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise refuse(f"its model is {model['type']}, and not BPE of bytes or of SentencePiece")
    tokens = dict(model["vocab"]) | {token["content"]: token["id"] for token in added}
    by_id = {number: token for token, number in tokens.items()}
    if max(by_id) >= size:
        raise refuse(f"it has tokens up to {max(by_id)}, and the model {size}")
    merges = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    types = dict.fromkeys(by_id.values(), NORMAL) | {
        token["content"]: CONTROL if token["special"] else USER_DEFINED for token in added}
    if model.get("byte_fallback"):
        vocabulary = _sentencepiece(content, tokens, merges, types, refuse)
    else:
        vocabulary = Vocabulary("gpt2", _rule(content, refuse), [], [], merges=[" ".join(pair) for pair in merges])
    vocabulary.tokens = [by_id.get(number, f"[PAD{number}]") for number in range(size)]
    vocabulary.types = [types.get(token, UNUSED) for token in vocabulary.tokens]
    if vocabulary.model == "llama":
        vocabulary.scores = [vocabulary.scores[number] if number in by_id else -1e4 for number in range(size)]
    return _with_specials(vocabulary, tokenizer)


def _refusal(tokenizer) -> Callable[[str], ValueError]:
    def refuse(reason: str) -> ValueError:
        return ValueError(f"the tokeniser, a {type(tokenizer).__name__}, cannot be written in GGUF: {reason}; export "
                          "the model without it (checkpoint.model), and encode texts with transformers")
    return refuse


def _with_specials(vocabulary: Vocabulary, tokenizer) -> Vocabulary:
    """The same with what is special, and what the tokeniser adds to a text."""
    for name in ("bos", "eos", "unk", "pad"):
        number = getattr(tokenizer, f"{name}_token_id", None)
        if number is not None and not (name == "unk" and vocabulary.model == "gpt2"):
            vocabulary.special[name] = number
    ids = tokenizer("a").input_ids
    for name, found in (("bos", ids[:1]), ("eos", ids[-1:])):
        if name in vocabulary.special:
            vocabulary.adds[name] = len(ids) > 1 and found == [vocabulary.special[name]]
    template = getattr(tokenizer, "chat_template", None)
    vocabulary.chat_template = template if isinstance(template, str) else None
    return vocabulary


def _rule(content: dict, refuse: Callable[[str], ValueError]) -> str:
    """The name that llama.cpp has for the rule by which byte-level BPE cuts text into words."""
    steps = _steps(content.get("pre_tokenizer"), "pretokenizers")
    last = steps[-1] if steps else {}
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        raise refuse("it is no byte-level BPE without a space before the text")
    first, words = steps[:-1], last.get("use_regex", True)
    name = None
    if not first and words:
        name = "gpt-2"
    elif len(first) == 1 and first[0]["type"] == "Digits" and first[0]["individual_digits"] and words:
        name = "smollm"
    elif len(first) == 1 and first[0]["type"] == "Split" and first[0]["behavior"] == "Isolated" and not words:
        name = SPLITS.get(first[0]["pattern"].get("Regex"))
    if name is None:
        raise refuse("it cuts text into words by a rule that is not one of GPT-2's, SmolLM's, Llama 3's and Qwen2's")
    normal = (content.get("normalizer") or {}).get("type")
    if normal not in ((None, "NFC") if name == "qwen2" else (None,)):  # llama.cpp leaves out the one of Qwen
        raise refuse(f"it changes the text by {normal}, which llama.cpp does not")
    if bool(content["model"].get("ignore_merges")) != (name == "llama-bpe"):
        raise refuse("it treats words that are tokens in another way than llama.cpp does with that rule")
    return name


def _steps(part: dict | None, key: str) -> list[dict]:
    """The members of a sequence, or what stands alone."""
    if part is None:
        return []
    return part[key] if part["type"] == "Sequence" else [part]


def _sentencepiece(
    content: dict, tokens: dict[str, int], merges: list[tuple[str, str]], types: dict[str, int],
    refuse: Callable[[str], ValueError],
) -> Vocabulary:
    """A vocabulary with a score for each token: the earlier its merges, the higher. The types of bytes are set."""
    types |= dict.fromkeys(BYTES & tokens.keys(), BYTE)
    unknown = content["model"].get("unk_token")
    if unknown in tokens:
        types[unknown] = UNKNOWN
    joined = [token for token, kind in types.items() if kind == NORMAL]
    halves = {(token[:cut], token[cut:]) for token in joined for cut in range(1, len(token))
              if token[:cut] in tokens and token[cut:] in tokens}
    order = [token for token, _ in groupby(left + right for left, right in merges)]
    if halves != set(merges) or len(order) != len(set(order)):
        raise refuse("its merges are not those that scores of tokens stand for, as SentencePiece has them")
    ranks = {token: rank for rank, token in enumerate(order)}
    scores = {number: -float(ranks.get(token, len(order))) for token, number in tokens.items()}
    return Vocabulary("llama", "default", [], [], scores=scores, adds={"space_prefix": _space_prefix(content, refuse)})


def _space_prefix(content: dict, refuse: Callable[[str], ValueError]) -> bool:
    """Whether a space is put before a text."""
    steps = [*_steps(content.get("normalizer"), "normalizers"), *_steps(content.get("pre_tokenizer"), "pretokenizers")]
    kinds = [step["type"] for step in steps]
    if kinds == ["Metaspace"]:
        return steps[0].get("prepend_scheme", "always") != "never"
    if kinds in (["Replace"], ["Prepend", "Replace"]):
        return kinds[0] == "Prepend"
    raise refuse("it treats spaces in another way than SentencePiece does")
