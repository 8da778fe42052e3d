"""Small tokenisers of the kinds that llama.cpp has, trained without a network."""

import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from nanoq.quant.gguf_tokenizer import SPLITS

VOCABULARY = 320
CORPUS = ["the film was good and the cat was not", "once upon a time there were 12 cats and 3 dogs, don't stop"] * 20


def byte_level(pre="gpt-2"):
    """A byte-level BPE of each rule that has a name in llama.cpp."""
    core = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    rules = {"gpt-2": [], "smollm": [pre_tokenizers.Digits(individual_digits=True)]} | {
        name: [pre_tokenizers.Split(Regex(rule), "isolated")] for rule, name in SPLITS.items()}
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre in ("gpt-2", "smollm"))
    core.pre_tokenizer = pre_tokenizers.Sequence([*rules[pre], last]) if rules[pre] else last
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=VOCABULARY - 4, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    core.add_tokens(["<think>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", chat_template="{{ messages[0].content }}")


def sentencepiece():
    """A tokeniser as that of Llama 2: bytes as a last resort, and merges that follow from scores."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=60, show_progress=False))
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learned = sorted(core.get_vocab(), key=core.get_vocab().get)
    vocabulary = {token: number for number, token in enumerate([*special, *learned])}
    merges = [(token[:cut], token[cut:]) for token in learned for cut in range(1, len(token))
              if token[:cut] in vocabulary and token[cut:] in vocabulary]
    whole = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    whole.normalizer = core.normalizer
    whole.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                       decoders.Strip(" ", 1, 0)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=whole, unk_token="<unk>", bos_token="<s>",
                                                eos_token="</s>")
