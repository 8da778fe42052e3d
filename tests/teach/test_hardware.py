"""The machine check measures, and never takes long."""

import time
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from nanoq import machine
from nanoq.machine import describe_products
from nanoq.teach.hardware import plot_products

TIMES = {"fp32": 2.0, "bf16": 120.0, "fp16": None, "int8": 1.0}


def test_the_report_is_about_this_machine():
    report = machine.machine_report()
    assert report.versions["torch"] == torch.__version__
    assert report.cores >= 1 and 0 < report.free_memory_gb < report.memory_gb
    assert torch.__version__ in str(report) and "GB free" in str(report)


@pytest.mark.parametrize(("limit", "used", "files", "expected"), [
    ("4000000000", "1500000000", "500000000", (4.0, 3.0)),  # files are forgotten when memory is wanted
    ("4000000000", "4100000000", "0", (4.0, 0.0)),
    ("64000000000", "1000000000", "0", (16.0, 9.0)),  # a limit that the machine does not reach
    ("max", "1500000000", "0", (16.0, 9.0)),
    (None, "", "", (16.0, 9.0)),
])
def test_the_memory_is_what_a_container_may_use(tmp_path, monkeypatch, limit, used, files, expected):
    monkeypatch.setattr(machine, "_CONTAINER", tmp_path)
    of_the_machine = SimpleNamespace(total=16 * 10**9, available=9 * 10**9)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: of_the_machine)
    if limit:
        for name, content in {"max": limit, "current": used, "stat": f"anon 7\ninactive_file {files}\n"}.items():
            (tmp_path / f"memory.{name}").write_text(content)
    report = machine.machine_report()
    assert (report.memory_gb, report.free_memory_gb) == expected


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
