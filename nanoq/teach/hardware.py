"""What `nanoq.machine` finds out, for a notebook: with a figure."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from nanoq.machine import describe_products, in_words, machine_report, probe_products, ratios_to_fp32
from nanoq.teach.plots import COLORS

__all__ = ["describe_products", "machine_report", "plot_products", "probe_products"]


def plot_products(times: dict[str, float | None]) -> Figure:
    """Bars: how long the product takes in each type if it takes 1 in fp32; on a logarithmic axis, from 1."""
    figure, axes = plt.subplots(figsize=(7, 2.6))
    ratios = ratios_to_fp32(times)
    for row, (name, ratio) in enumerate(ratios.items()):
        slower = (ratio or 1) > 1
        axes.barh(row, (ratio or 1) - 1, left=1, height=0.6, color=COLORS["vermillion" if slower else "green"])
        label = "not supported here" if ratio is None else "the reference" if name == "fp32" else in_words(ratio)
        axes.annotate(label, (max(ratio or 1, 1), row), xytext=(6, 0), textcoords="offset points", va="center")
    known = [ratio for ratio in ratios.values() if ratio]
    axes.axvline(1, color="black", lw=1.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(min(0.5, *known) / 1.3, max(2, *known) * 8)  # room for the words
    axes.set_yticks(range(len(ratios)), list(ratios))
    axes.invert_yaxis()
    axes.set(xlabel="time of one matrix product, fp32 = 1 (further left is faster)")
    return figure
