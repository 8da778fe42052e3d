"""The figures of notebook 00."""

from matplotlib.figure import Figure

from nanoq.teach import course, hardware
from nanoq.teach.plots import figure


def _map_in_words() -> str:
    arrows = "; ".join(f"{notebook.number:02} builds on {' and '.join(f'{need:02}' for need in notebook.needs)}"
                       for notebook in course.COURSE if notebook.needs)
    return (f"Map of the course: {len(course.COURSE)} boxes from left to right, an arrow from each to those that build "
            f"on it: {arrows}.")


@figure(_map_in_words)
def course_map() -> Figure:
    """The notebooks of the course, and which builds on which."""
    return course.course_map()


@figure("Bars: the time of one matrix product in bf16, fp16 and int8 if it takes 1 in fp32, on a logarithmic axis. The "
        "sentence below the figure says what they show on this machine.")  # fmt: skip
def products(times: dict[str, float | None]) -> Figure:
    """How long one matrix product takes in each number type, compared with fp32."""
    return hardware.plot_products(times)
