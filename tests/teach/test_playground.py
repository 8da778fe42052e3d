"""The playground: what models write with the same luck, what they think of it, what is shown, and its controls."""

import math
import re
from html.parser import HTMLParser

import pytest
import torch

from nanoq.compress import Prune, SparseLinear, compress_model
from nanoq.lm import GPT, CharTokenizer, Checkpoint, GPTConfig, generate, stream
from nanoq.quant import Recipe, quantize_model
from nanoq.store import save
from nanoq.teach import playground as module
from nanoq.teach.compare import (
    UNKNOWN,
    Answer,
    Comparison,
    Contender,
    compare_answers,
    compare_reading,
    first_divergence,
    load_contender,
    predictions,
    write,
)
from nanoq.teach.playground import Panel, playground

TOKENIZER = CharTokenizer("abc <&\n'\"")
SIZE = TOKENIZER.vocab_size


def make(name, seed=0, context=16, tokenizer=TOKENIZER):
    config = GPTConfig(vocab_size=tokenizer.vocab_size, context=context, layers=2, heads=2, width=16)
    model = GPT(config, seed=seed).eval()
    with torch.no_grad():
        model.token_embedding.weight.mul_(20)  # far from uniform
    return Contender(name, model, tokenizer, 1234)


@pytest.fixture(scope="module")
def pair():
    return [make("one"), make("other", seed=1)]


class Reader(HTMLParser):
    """Rows of a page's tables as text, what is marked, and every tag."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.marked, self.tags, self._open = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if "mark" in self._open:
            self.marked.append(data)
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] += data


# ---- writing ----


def test_an_answer_is_what_the_model_generates_with_that_seed(pair):
    answers = compare_answers(pair, "ab", temperature=0.8, seed=7, length=30).answers
    for one, answer in zip(pair, answers, strict=True):
        text = generate(one.model, TOKENIZER, "ab", 30, temperature=0.8, seed=7)
        assert "ab" + TOKENIZER.decode(answer.tokens) == text
        assert len(answer.seconds) == 30 and answer.speed == 29 / sum(answer.seconds[1:])


def test_models_write_in_turn(pair):
    rounds = write(pair, "a", length=3)
    assert [[len(answer.tokens) for answer in answers] for answers in rounds] == [[1, 1], [2, 2], [3, 3]]


def test_equal_models_write_equal_texts_and_draws_are_races():
    twins = [make("one"), make("two")]
    first, second = compare_answers(twins, "a", seed=3, length=40).answers
    assert first.tokens == second.tokens
    waits = torch.empty(SIZE).exponential_(generator=torch.Generator().manual_seed(3))
    chances = predictions(twins[0].model, TOKENIZER.encode("a"))[-1].exp2()
    assert first.tokens[0] == int((waits / chances).argmin())  # the common random numbers that notebook 16 is about


@pytest.mark.parametrize(("options", "message"), [
    ({"prompt": ""}, "the prompt is empty"),
    ({"prompt": "a☃b"}, "do not know ‘☃’"),
    ({"prompt": "a" * 17}, "17 characters, the models read 16"),
    ({"temperature": -1}, "temperature must be 0 or more, not -1"),
    ({"temperature": math.nan}, "temperature must be 0 or more, not nan"),
    ({"length": 0}, "length must be 1 to 1000"),
    ({"length": 1001}, "length must be 1 to 1000"),
    ({"seed": -1}, "seed must be a whole number"),
    ({"seed": 2**63}, "seed must be a whole number"),
])
def test_what_cannot_be_asked_is_refused_before_anything_is_written(pair, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        write(pair, **{"prompt": "ab", "length": 5} | options)


def test_models_that_cannot_stand_side_by_side_are_refused(pair):
    with pytest.raises(ValueError, match="choose at least one model"):
        write([], "a")
    with pytest.raises(ValueError, match="two models are called one"):
        write([pair[0], make("one")], "a")
    with pytest.raises(ValueError, match="foreign reads other characters than one"):
        write([pair[0], make("foreign", tokenizer=CharTokenizer("abcdefghi"))], "a")


# ---- from a file ----


@pytest.mark.parametrize(("recipe", "name"), [
    (None, "float32"),
    (Recipe(bits=16), "float16"),
    (Recipe(bits=4), "RTN 4 bit"),
    (Recipe(Recipe(bits=4).default, rules={"blocks.0.*": Recipe(bits=8).default}), "RTN 4 bit, mixed"),
])
def test_a_contender_from_a_folder_is_called_as_on_the_leaderboard(tmp_path, recipe, name):
    one = make("x")
    if recipe is None:
        save(tmp_path, Checkpoint(one.model, TOKENIZER, {}))
    else:
        quantize_model(one.model, recipe)
        card = {"config": vars(one.model.config), "characters": "".join(TOKENIZER.characters)}
        save(tmp_path, Checkpoint(one.model, TOKENIZER, card))
    loaded = load_contender(tmp_path)
    assert (loaded.name, loaded.bytes) == (name, (tmp_path / "model.safetensors").stat().st_size)
    assert load_contender(tmp_path, "mine").name == "mine"
    tokens = TOKENIZER.encode("abc ab")
    assert torch.equal(predictions(loaded.model, tokens), predictions(one.model, tokens))


def test_a_pruned_model_comes_in_like_any_other(tmp_path):
    one = make("x")
    compress_model(one.model, Prune("magnitude"))
    card = {"config": vars(one.model.config), "characters": "".join(TOKENIZER.characters)}
    save(tmp_path, Checkpoint(one.model, TOKENIZER, card))
    loaded = load_contender(tmp_path)
    assert loaded.name == "magnitude 50 %" and isinstance(loaded.model.blocks[0].mlp.up, SparseLinear)


# ---- reading ----


@pytest.mark.parametrize(("texts", "position"), [
    (["abc", "abd"], 2), (["abc", "abc"], None), (["abc", "ab"], None), (["xa", "ya"], 0), ([[1, 2], [1, 3]], 1),
    (["xa", "xb", "xa"], 1), (["abc"], None), (["", "a"], None),
])
def test_first_divergence(texts, position):
    assert first_divergence(texts) == position


def test_predictions_are_those_that_the_text_was_written_with(pair):
    model, prompt = pair[0].model, TOKENIZER.encode("ab")
    written = stream(model, prompt, temperature=0)
    text = torch.cat([prompt, torch.tensor([next(written) for _ in range(60)])])  # beyond the context of 16
    predicted = predictions(model, text)
    assert predicted.shape == (62, SIZE)
    assert torch.allclose(predicted.exp2().sum(1), torch.ones(62))
    assert torch.equal(predicted.argmax(1)[1:-1], text[2:])


@pytest.mark.parametrize("context", [1, 2, 3])
def test_predictions_for_every_context(context):
    model, tokens = make("x", context=context).model, torch.arange(1, 9)
    predicted = predictions(model, tokens)
    assert predicted.shape == (8, SIZE)
    first = model(tokens[None, :context])[0].log_softmax(-1) / math.log(2)
    assert torch.allclose(predicted[:context], first)


def test_surprise_is_minus_log2_of_what_was_expected(pair):
    comparison = compare_reading(pair, "abca")
    bits = comparison.surprise("other", "one")
    logits = pair[1].model(TOKENIZER.encode("abca")[None])[0].detach()
    expected = [-math.log2(logits[i].softmax(0)[TOKENIZER.encode("abca")[i + 1]]) for i in range(3)]
    assert bits.tolist() == pytest.approx(expected, abs=1e-4)


def test_next_characters_are_the_likeliest_given_what_stands_before(pair):
    comparison = compare_reading(pair, "abca")
    found = comparison.next_characters("one", "other", 2, k=SIZE)
    chances = pair[0].model(TOKENIZER.encode("ab")[None])[0, -1].softmax(0).detach()
    assert sum(p for _, p in found) == pytest.approx(1, abs=1e-5)
    assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)
    assert dict(found)["c"] == pytest.approx(float(chances[TOKENIZER.encode("c")[0]]), abs=1e-5)
    assert dict(found)[UNKNOWN] == pytest.approx(float(chances[0]), abs=1e-5)


@pytest.mark.parametrize("position", [0, 5, 1.5])
def test_a_position_outside_the_text_is_refused(pair, position):
    with pytest.raises(ValueError, match=re.escape("the position must be in 1..4")):
        compare_reading(pair, "abca").next_characters("one", "one", position)


def test_an_author_who_is_not_there_is_refused(pair):
    with pytest.raises(ValueError, match="no answer of 'nobody': there are one, other"):
        compare_reading(pair, "abca").surprise("one", "nobody")


def test_a_text_that_cannot_be_read_is_refused(pair):
    with pytest.raises(ValueError, match="there is no text"):
        compare_reading(pair, "")
    with pytest.raises(ValueError, match="do not know ‘☃’"):
        compare_reading(pair, "a ☃")


def test_a_divergence_says_what_both_wrote_and_expected(pair):
    comparison = compare_answers(pair, "ab", seed=1, length=40)
    found = comparison.divergence("other")
    one, other = (answer.tokens for answer in comparison.answers)
    assert one[: found.position] == other[: found.position] and one[found.position] != other[found.position]
    history = torch.cat([TOKENIZER.encode("ab"), torch.tensor(one[: found.position], dtype=torch.int64)])
    chances = pair[1].model(history[None])[0, -1].softmax(0).detach()
    assert found.expected[1] == pytest.approx([float(chances[t[found.position]]) for t in (one, other)], abs=1e-5)
    assert comparison.divergence("one") is None


# ---- what is shown ----


def written(*texts):
    """A comparison of answers with given texts, by models that share their luck."""
    answers = []
    for i, text in enumerate(texts):
        answers.append(Answer(make(f"model <{i}>", seed=i), "a<b", TOKENIZER.encode(text).tolist(), [0.5] * len(text)))
    return Comparison(answers)


def test_the_first_other_character_is_marked_and_nothing_else():
    page = Reader(written("abc a", "abc b", "abc a", "ab\nca").answers_html())
    assert page.marked == ["b", "↵"]
    assert [row[0] for row in page.rows[1:]] == [f"model <{i}>" for i in range(4)]
    assert page.rows[1][1:3] == ["1,234", "2"]
    assert page.rows[2][3] == "a<babc b"


def test_what_models_write_is_no_html():
    comparison = written("<b>&\"'", "<c>&\"'".replace(">", " "))
    pages = [comparison.answers_html(), comparison.divergence_html(), comparison.surprise_html("model <0>"),
             comparison.next_html("model <1>", 3)]
    for page in pages:
        assert not {tag for tag, _ in Reader(page).tags} & {"b>", "c"}
        assert "<b>&" not in page and "model <" not in page
    assert "a<b<" in "".join(cell for row in Reader(pages[0]).rows for cell in row)


def test_an_unknown_token_is_one_character():
    answer = Answer(make("x"), "a", [1, 0, 2])
    assert answer.text == f"a{UNKNOWN}b"
    assert math.isnan(answer.speed)


def test_surprise_is_shown_by_more_than_colour(pair):
    comparison = compare_answers(pair[:1], "abc<b'a", temperature=0, length=8)
    page = comparison.surprise_html("one", ["one"])
    spans = [attrs for tag, attrs in Reader(page).tags if tag == "span"]
    bits = comparison.surprise("one", "one").tolist()
    assert [span["title"] for span in spans] == [f"{b:.1f} bits" for b in bits]
    assert any(b >= 3 for b in bits) and any(b < 1 for b in bits)
    for span, b in zip(spans, bits, strict=True):
        style = span.get("style", "")
        assert ("underline" in style) == (b >= 3) and ("bold" in style) == (b >= 6)
        assert ("background" in style) == ("color:black" in style) == (b >= 1)  # to be read in a dark theme, too
    worst = max(range(len(bits)), key=bits.__getitem__)
    assert f"at {worst + 1} ({bits[worst]:.1f})" in page


def test_the_page_of_divergences_has_the_bits_of_the_answer_alone(pair):
    comparison = compare_answers(pair, "abcabc", temperature=3, seed=1, length=40)
    rows = Reader(comparison.divergence_html()).rows
    assert rows[1][:2] == ["one", "–"]
    assert rows[2][1] == f"character {comparison.divergence('other').position + 1}"
    assert rows[2][4] == f"{comparison.surprise('one', 'other')[-40:].mean():.2f}"


def test_the_next_characters_of_all_models_are_shown(pair):
    rows = Reader(compare_reading(pair, "ab c").next_html("one", 4)).rows
    assert [row[0] for row in rows] == ["model", "one", "other"]
    assert "the text ends" in compare_reading(pair, "ab c").next_html("one", 4)
    assert "there stands ‘␣’" in compare_reading(pair, "ab c").next_html("one", 2)


# ---- the controls ----


@pytest.fixture
def panel(pair, monkeypatch):
    monkeypatch.setattr(module, "_SETTLE", 0)
    panel = Panel([*pair, make("third", seed=2)], ["one", "other"])
    panel.prompt.value, panel.length.value = "ab", 12
    yield panel
    panel.stopped.set()
    if panel.thread:
        panel.thread.join()


def finish(panel):
    panel.thread.join(timeout=60)
    assert not panel.thread.is_alive()


def press_enter(panel):
    panel.prompt._handle_custom_msg({"event": "submit"}, [])


def test_every_control_has_a_name_and_a_class(panel):
    controls = [panel.prompt, panel.temperature, panel.seed, panel.length, *panel.models.children, panel.go, panel.halt,
                panel.whose, panel.position]
    assert all(control.description for control in controls)
    classes = {name for widget in panel.box.children for name in widget._dom_classes} | set(panel.box._dom_classes)
    for row in panel.box.children:
        classes |= {name for child in getattr(row, "children", ()) for name in child._dom_classes}
    assert classes == {f"nanoq-{name}" for name in (
        "playground", "prompt", "temperature", "seed", "length", "models", "go", "stop", "status", "answers",
        "divergence", "whose", "surprise", "position", "next")}


@pytest.mark.parametrize("start", [press_enter, lambda panel: panel.go.click()])
def test_enter_and_the_button_write(panel, start):
    start(panel)
    finish(panel)
    assert "Done: 12 characters each." in panel.status.value
    expected = compare_answers(panel.contenders[:2], "ab", seed=1, length=12)
    assert [answer.tokens for answer in panel.comparison.answers] == [answer.tokens for answer in expected.answers]
    assert "other" in panel.answers.value and "third" not in panel.answers.value
    assert panel.divergence.value == expected.divergence_html()
    assert panel.position.value == 2 + expected.divergence("other").position and panel.position.max == 14
    assert panel.surprise.value == expected.surprise_html("one")
    assert panel.next.value == expected.next_html("one", panel.position.value)


def test_text_and_position_can_be_chosen_afterwards(panel):
    panel.start()
    finish(panel)
    panel.whose.value = "other"
    panel.position.value = 5
    assert panel.surprise.value == panel.comparison.surprise_html("other")
    assert panel.next.value == panel.comparison.next_html("other", 5)


def test_other_models_can_be_chosen_for_the_next_run(panel):
    panel.start()
    finish(panel)
    for box, chosen in zip(panel.models.children, (False, True, True), strict=True):
        box.value = chosen
    panel.length.value = 3
    panel.start()
    finish(panel)
    assert panel.comparison.names == ["other", "third"] and panel.whose.options == ("other", "third")
    assert panel.position.max == 5 and "Done" in panel.status.value


def test_stop_keeps_what_there_is(panel, monkeypatch):
    rounds = write(panel.contenders[:2], "ab", length=1000)

    def slow(*args, **options):
        for number, answers in enumerate(rounds, 1):
            if number == 5:
                panel.halt.click()
            yield answers

    monkeypatch.setattr(module, "write", slow)
    panel.length.value = 1000
    panel.start()
    finish(panel)
    assert "Stopped after 5 of 1000 characters." in panel.status.value
    assert len(panel.comparison.answers[0].tokens) == 5 and panel.surprise.value


def test_to_start_again_stops_what_is_being_written(panel):
    panel.length.value = 1000
    panel.start()
    first = panel.thread
    panel.length.value = 4
    panel.start()
    assert not first.is_alive()
    finish(panel)
    assert "Done: 4 characters each." in panel.status.value


@pytest.mark.parametrize(("control", "value", "word"), [
    ("prompt", "", "prompt is empty"), ("prompt", "<i>☃", "☃"), ("temperature", -1.0, "temperature"),
    ("length", 0, "length"), ("seed", -3, "seed"),
])
def test_a_wrong_entry_gets_one_sentence_and_can_be_mended(panel, control, value, word):
    good = getattr(panel, control).value
    getattr(panel, control).value = value
    panel.start()
    finish(panel)
    assert "Please change this" in panel.status.value and word in panel.status.value and "<i>" not in panel.status.value
    getattr(panel, control).value = good
    panel.start()
    finish(panel)
    assert "Done" in panel.status.value


def test_no_model_chosen_is_said(panel):
    for box in panel.models.children:
        box.value = False
    panel.start()
    finish(panel)
    assert "choose at least one model" in panel.status.value


def test_the_first_three_are_chosen_unless_others_are(pair):
    four = [*pair, make("c"), make("d")]
    boxes = playground(four).children[2].children
    assert [box.value for box in boxes] == [True, True, True, False]
    assert [box.value for box in playground(four, ["d"]).children[2].children] == [False, False, False, True]
