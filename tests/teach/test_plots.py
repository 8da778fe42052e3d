"""Figures: the style, and the alternative text (tests/notebooks shows that it reaches the HTML page)."""

import inspect

import matplotlib.pyplot as plt
import pytest

from nanoq.teach import plots, show, use_style


@pytest.fixture
def figure():
    with plt.rc_context():
        use_style()
        figure, axes = plt.subplots()
        axes.plot([1, 2, 3])
        yield figure
    plt.close(figure)


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    monkeypatch.setattr(plots, "display", lambda data, raw, metadata=None: outputs.append((data, metadata)))
    return outputs


def test_the_style_is_readable(figure):
    assert list(figure.get_size_inches()) == [7, 4] and figure.dpi == 110
    assert min(label.get_fontsize() for label in figure.axes[0].get_xticklabels()) >= 10


@pytest.mark.parametrize("alt", ["", "  "])
def test_a_figure_without_alt_text_is_refused(figure, alt):
    with pytest.raises(ValueError, match="alt="):
        show(figure, alt=alt)


def test_a_figure_is_shown_with_its_words_and_closed(figure, shown):
    show(figure, alt="A line from <1> to 3")
    assert figure.number not in plt.get_fignums()
    (picture, metadata), (words, _) = shown
    assert metadata == {"image/png": {"alt": "A line from <1> to 3"}}
    assert picture["text/plain"] == "A line from <1> to 3"
    assert "A line from &lt;1&gt; to 3" in words["text/html"]


def test_the_same_figure_gives_the_same_bytes(figure, shown):
    show(figure, alt="A line")
    show(figure, alt="A line")
    assert shown[0][0]["image/png"] == shown[2][0]["image/png"]


def test_a_decorated_figure_shows_itself_with_its_words_and_its_code(shown):
    @plots.figure(lambda values: f"A line of {len(values)} values.")
    def line(values):
        """Draw a line."""
        fig, axes = plt.subplots()
        axes.plot(values)
        return fig

    assert line([1, 2, 3]) is None
    assert shown[0][1] == {"image/png": {"alt": "A line of 3 values."}}
    assert "axes.plot(values)" in inspect.getsource(line) and line.__doc__ == "Draw a line."


def test_every_format_has_a_colour_of_its_own():
    assert len(set(plots.FORMAT_COLORS.values())) == len(plots.FORMAT_COLORS)
    assert set(plots.FORMAT_COLORS.values()) <= set(plots.COLORS.values())
