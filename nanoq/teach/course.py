"""The map of the course: which notebooks there are, and which has to come before which."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from nanoq.teach.plots import COLORS


@dataclass(frozen=True)
class Notebook:
    """One notebook of the course.

    Attributes:
        slug: its file name without the ending, which begins with its number.
        title: what stands in its box on the map, two short lines.
        question: what it answers.
        part: the part of the course it belongs to.
        needs: numbers of the notebooks that have to come before it.
        at: its place on the map, (column, row) from the left and from the top.
    """

    slug: str
    title: str
    question: str
    part: str
    needs: tuple[int, ...]
    at: tuple[int, int]

    @property
    def number(self) -> int:
        """0 to 15."""
        return int(self.slug[:2])


PARTS = {
    "start": "black", "foundations": "blue", "rounding": "vermillion", "other roads": "purple", "speed": "orange",
    "mixed precision": "green", "real models": "sky",
}

COURSE = (
    Notebook("00_start_here", "start\nhere", "What is this, and will it run here?", "start", (), (0, 2)),
    Notebook("01_data_types", "data\ntypes", "What is a number made of?", "foundations", (0,), (1, 1)),
    Notebook("02_downcasting", "down-\ncasting", "What gets lost in a smaller type?", "foundations", (1,), (2, 0)),
    Notebook("03_nanogpt", "nanoGPT", "What are we going to quantise?", "foundations", (0,), (1, 3)),
    Notebook("04_naive_rounding", "naive\nrounding", "How far does plain rounding go?", "rounding", (1, 3), (2, 2)),
    Notebook("14_other_roads", "four\nroads", "Which other ways make a model small?", "other roads", (4,), (3, 0)),
    Notebook("05_ternary_operators", "ternary\nweights", "Are three values enough?", "rounding", (4,), (3, 1)),
    Notebook("06_learned_rounding_and_qat", "learned\nrounding", "Can rounding be trained?", "rounding", (6,), (4, 1)),
    Notebook("07_gptq", "GPTQ", "Can one weight make up for another's error?", "rounding", (4,), (3, 2)),
    Notebook("08_size_is_not_speed", "size is\nnot speed", "When is smaller also faster?", "speed", (4,), (3, 3)),
    Notebook("10_cmpq", "CMPQ", "Which layers matter: by correlation?", "mixed precision", (4,), (3, 4)),
    Notebook("11_pmpq", "PMPQ", "Which layers matter: by pruning?", "mixed precision", (10,), (4, 4)),
    Notebook("12_tdmpq", "TDMPQ", "Which layers matter: by disturbing them?", "mixed precision", (10,), (4, 5)),
    Notebook("13_mixed_precision_showdown", "show-\ndown", "Which score is worth its bytes?", "mixed precision",
             (8, 11, 12), (5, 4)),
    Notebook("15_real_models", "real\nmodels", "Does it hold for OPT, BERT and Llama?", "real models", (13,), (6, 4)),
    Notebook("16_playground", "play-\nground", "What does it feel like?", "real models", (8,), (6, 2)),
)  # fmt: skip


def course_map() -> Figure:
    """The 16 notebooks and the arrows between them."""
    figure, axes = plt.subplots(figsize=(9, 5.4))
    boxes = [axes.add_patch(_box(notebook)) for notebook in COURSE]
    for notebook, box in zip(COURSE, boxes, strict=True):
        label = f"{notebook.number:02}\n{notebook.title}"
        axes.text(*notebook.at, label, ha="center", va="center", color="black", zorder=3)
        for need in notebook.needs:
            arrow = {"arrowstyle": "-|>", "color": "0.4", "lw": 1.3, "patchA": boxes[need], "patchB": box}
            axes.annotate("", notebook.at, COURSE[need].at, zorder=1, arrowprops=arrow | {"shrinkA": 0, "shrinkB": 1})
    keys = [Patch(facecolor=_tint(COLORS[color]), edgecolor=COLORS[color], label=part) for part, color in PARTS.items()]
    axes.legend(handles=keys, loc="lower left")
    axes.set(xlim=(-0.45, 6.45), ylim=(5.5, -0.5), title="An arrow leads from what comes first.")
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
        name = " ".join(notebook.title.replace("-\n", "").split())
        name = f"{notebook.number:02} · {name}"
        needs = ", ".join(f"{need:02}" for need in notebook.needs) or "–"
        lines.append(f"| [{name}]({notebook.slug}.ipynb) | {notebook.question} | {needs} |")
    return "\n".join(lines)
