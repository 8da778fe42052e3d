"""The machine check measures, and never takes long."""

import time

import matplotlib.pyplot as plt
import pytest
import torch

from nanoq.teach import machine
from nanoq.teach.machine import describe_products, plot_products

TIMES = {"fp32": 2.0, "bf16": 120.0, "fp16": None, "int8": 1.0}


def test_the_report_is_about_this_machine():
    report = machine.machine_report()
    assert report.versions["torch"] == torch.__version__
    assert report.cores >= 1 and 0 < report.free_memory_gb < report.memory_gb
    assert torch.__version__ in str(report) and "GB free" in str(report)


def test_the_report_says_what_will_be_missed():
    values = vars(machine.machine_report())
    poor = machine.MachineReport(**values | {"cores": 1, "free_memory_gb": 0.7, "checkpoints": ()})
    rich = machine.MachineReport(**values | {"cores": 2, "free_memory_gb": 8.0, "checkpoints": ("tales-2.7m",)})
    assert [text.split()[0] for text in poor.warnings] == ["Only", "There", "The"]
    assert rich.warnings == [] and str(rich).endswith("Everything that the course needs is here.")
    assert not any("/" in line for line in str(rich).splitlines() if line.startswith("models"))


# ---- which products are fast here ----


def test_every_type_is_probed_and_the_threads_are_as_before():
    before = torch.get_num_threads()
    times = machine.probe_products(size=32, seconds=0.01)
    assert list(times) == ["fp32", "bf16", "fp16", "int8"]
    assert times["fp32"] > 0 and all(seconds is None or seconds > 0 for seconds in times.values())
    assert torch.get_num_threads() == before


def test_int8_products_are_exact_on_this_machine():
    multiply, matrix = machine._product("int8", 32, "cpu")
    assert torch.equal(multiply(matrix, matrix).long(), matrix.long() @ matrix.long())


def test_a_slow_product_is_run_twice_and_no_more():
    calls = []

    def slow(a, b):
        calls.append(1)
        time.sleep(0.05)
        return a

    assert machine._shortest(slow, torch.ones(1, 1), seconds=0.0) >= 0.05
    assert len(calls) == 2


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError])
def test_a_product_that_is_not_there(error):
    def missing(a, b):
        raise error("not implemented for 'Half'")

    assert machine._shortest(missing, torch.ones(1, 1), seconds=1.0) is None


def test_the_threads_are_as_before_after_an_error(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(machine, "_shortest", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        machine.probe_products(size=8)
    assert torch.get_num_threads() == before


def test_what_was_found_in_words():
    assert describe_products(TIMES) == (
        "Compared with fp32: bf16 60 times as long, int8 2.0 times as fast and fp16 not supported. "
        "So on this machine a product in int8 saves time as well as memory."
    )
    slow = describe_products({"fp32": 1.0, "bf16": 1.1, "fp16": 30.0, "int8": 61.0})
    assert slow.startswith("Compared with fp32: bf16 about the same, fp16 30 times as long and int8 61 times as long.")
    assert slow.endswith("saves no time.")


@pytest.mark.parametrize("times", [TIMES, {"fp32": 1.0, "bf16": None, "fp16": None, "int8": None}])
def test_the_bars(times):
    figure = plot_products(times)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(times)
    assert len(axes.patches) == len(times)
    assert sum(text.get_text() == "not supported here" for text in axes.texts) == list(times.values()).count(None)
    plt.close(figure)
