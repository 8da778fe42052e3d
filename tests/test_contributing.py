"""What CONTRIBUTING.md shows is run."""

import re
from pathlib import Path

import torch

from nanoq.quant import METHODS, affine_grid

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_a_method_in_ten_lines(monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    function = code.split("\n\n")[1]
    assert function.startswith("def stochastic") and len(function.splitlines()) + 1 <= 10  # with that in METHODS
    monkeypatch.setitem(METHODS, "stochastic", None)  # and away again after the test
    names = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    rows = {row.method: row for row in names["board"].rows}
    assert 0 < rows["stochastic"].delta_nats < 1
    weight = torch.full((1, 20_000), 0.3)
    weight[0, 0] = 1.5
    grid = affine_grid(weight, 2)  # 0, 0.5, 1, 1.5
    values = grid.decode(names["stochastic"](weight, grid))[0, 1:]
    assert set(values.tolist()) == {0.0, 0.5} and abs(float(values.mean()) - 0.3) < 0.01
