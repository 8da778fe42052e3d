"""The map of the course: which notebooks there are, and which has to come before which."""

from dataclasses import dataclass
from textwrap import fill

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from nanoq.teach.plots import COLORS


@dataclass(frozen=True)
class Notebook:
    """One notebook of the course.

    Attributes:
        slug: its file name without the ending, which begins with its number.
        name: what it is called, everywhere: on the map, in its own heading, in the text of the others.
        question: what it answers.
        part: the part of the course it belongs to.
        needs: numbers of the notebooks that have to come before it; what these need is not said again.
        at: its place on the map, (column, row) from the left and from the top.
    """

    slug: str
    name: str
    question: str
    part: str
    needs: tuple[int, ...]
    at: tuple[float, float]

    @property
    def number(self) -> int:
        """The two digits that its file name begins with; not every number is there."""
        return int(self.slug[:2])

    @property
    def label(self) -> str:
        """Number and name, as "07 · GPTQ"."""
        return f"{self.number:02} · {self.name}"


PARTS = {
    "start": "black", "foundations": "blue", "rounding": "vermillion", "size and speed": "orange",
    "mixed precision": "green", "other roads": "purple", "real models": "sky",
}

COURSE = (
    Notebook("00_start_here", "Start here", "What is this, and will it run here?", "start", (), (0, 3)),
    Notebook("01_data_types", "Data types", "What is a number made of?", "foundations", (0,), (1, 2)),
    Notebook("02_downcasting", "Downcasting", "What gets lost in a smaller type?", "foundations", (1,), (2, 1)),
    Notebook("03_nanogpt", "nanoGPT", "What are we going to quantise?", "foundations", (0,), (1, 4)),
    Notebook("04_naive_rounding", "Naive rounding", "How far does plain rounding go?", "rounding", (1, 3), (2, 3)),
    Notebook("05_ternary_operators", "Ternary weights", "Are three values enough?", "rounding", (4,), (3.5, 1)),
    Notebook("06_learned_rounding_and_qat", "Learned rounding and QAT", "Can rounding be trained?", "rounding", (5,),
             (5, 0)),
    Notebook("07_gptq", "GPTQ", "Can one weight make up for another's error?", "rounding", (4,), (3.5, 3)),
    Notebook("08_size_is_not_speed", "Size is not speed", "When is smaller also faster?", "size and speed", (4,),
             (3.5, 4)),
    Notebook("09_how_near_to_the_limit", "How near to the limit", "How small can a model get?", "size and speed", (7,),
             (5, 3)),
    Notebook("10_cmpq", "CMPQ", "Which layers matter: by correlation?", "mixed precision", (4,), (3.5, 5)),
    Notebook("11_pmpq", "PMPQ", "Which layers matter: by pruning?", "mixed precision", (10,), (5, 5)),
    Notebook("12_tdmpq", "TDMPQ", "Which layers matter: by disturbing them?", "mixed precision", (10,), (5, 6)),
    Notebook("13_mixed_precision_showdown", "Mixed-precision showdown", "Which score is worth its bytes?",
             "mixed precision", (7, 11, 12), (6, 5)),
    Notebook("14_other_roads", "Other roads", "Which other ways make a model small?", "other roads", (7,), (5, 2)),
    Notebook("15_real_models", "Real models", "Does it hold for OPT, BERT and Llama?", "real models", (13,), (7, 5)),
    Notebook("16_playground", "Playground", "What does it feel like?", "real models", (7,), (5, 1)),
)  # fmt: skip

BY_NUMBER = {notebook.number: notebook for notebook in COURSE}


def course_map() -> Figure:
    """The notebooks and the arrows between them."""
    figure, axes = plt.subplots(figsize=(9.5, 6.4))
    boxes = {notebook.number: axes.add_patch(_box(notebook)) for notebook in COURSE}
    for notebook in COURSE:
        label = f"{notebook.number:02}\n{fill(notebook.name, 11)}"
        axes.text(*notebook.at, label, ha="center", va="center", color="black", size=8.5, zorder=3)
        for need in notebook.needs:
            arrow = {"arrowstyle": "-|>", "color": "0.4", "lw": 1.3, "shrinkA": 0, "shrinkB": 1,
                     "patchA": boxes[need], "patchB": boxes[notebook.number]}
            axes.annotate("", notebook.at, BY_NUMBER[need].at, zorder=1, arrowprops=arrow)
    keys = [Patch(facecolor=_tint(COLORS[color]), edgecolor=COLORS[color], label=part) for part, color in PARTS.items()]
    axes.legend(handles=keys, loc="lower left")
    axes.set(xlim=(-0.45, 7.45), ylim=(6.5, -0.5), title="An arrow leads from what comes first.")
    axes.axis("off")
    return figure


def _box(notebook: Notebook) -> FancyBboxPatch:
    """A notebook's box on the map."""
    (x, y), color = notebook.at, COLORS[PARTS[notebook.part]]
    look = {"boxstyle": "round,pad=0,rounding_size=0.1", "mutation_aspect": 1, "facecolor": _tint(color), "lw": 2}
    return FancyBboxPatch((x - 0.36, y - 0.38), 0.72, 0.76, edgecolor=color, zorder=2, **look)


def _tint(color: str) -> tuple[float, ...]:
    """A light shade that black text can be read on."""
    return tuple(1 - 0.3 * (1 - int(color[i : i + 2], 16) / 255) for i in (1, 3, 5))


def course_table() -> str:
    """The map in words, as a Markdown table with a link to each notebook."""
    lines = ["| notebook | question | comes after |", "|:--|:--|:--|"]
    for notebook in COURSE:
        needs = ", ".join(f"{need:02}" for need in notebook.needs) or "–"
        lines.append(f"| [{notebook.label}]({notebook.slug}.ipynb) | {notebook.question} | {needs} |")
    return "\n".join(lines)
