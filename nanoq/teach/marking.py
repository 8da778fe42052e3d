"""nbgrader's execution of a submission, with the checks out of its reach.

`nbgrader autograde` runs a submission in a kernel of its own, and by itself lets that kernel say what passes. Here the
kernel only hands over what the answers do, as data (`nanoq.teach.handover`), and the process of nbgrader, in which no
cell of a submission runs, judges. The lecturer's configuration puts `Mark` into the place of `Execute`:
`notebooks/teaching/nbgrader_config.py`.
"""

import ast
import math
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output
from nbgrader.preprocessors import Execute
from traitlets import Float, Integer

from nanoq.memory import limit_memory
from nanoq.teach.checks import CheckFailed, Verdict, assess, find_exercise
from nanoq.teach.handover import hand_over, take
from nanoq.teach.quiz import grade

ANSWERS = 30  # seconds that a kernel has to answer after it was interrupted
LONGEST = 2000  # characters of what is said of an answer
HAND_OVER = f"__import__({hand_over.__module__!r}, fromlist=['']).{hand_over.__name__}"


class Mark(Execute):
    """Run a submission; judge its answers here.

    A cell whose time is up is interrupted, and counts as one that failed. When the kernel does not answer any more, has
    died, or has had its time for the whole notebook, it is ended, and what comes after counts as not done.
    """

    notebook_timeout = Integer(3600, help="Seconds for all cells of a notebook together.").tag(config=True)
    memory_gb = Float(8, help="Memory that each process of a submission may ask for (Linux only).").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict, km: AsyncKernelManager | None = None) -> tuple:
        """Run and judge a notebook in a kernel of its own, which is ended afterwards."""
        self._ended, self._limited, self._deadline = "", False, time.monotonic() + self.notebook_timeout
        self.timeout_func = lambda cell: max(1, min(self.timeout or 10**9, self._seconds_left()))
        with tempfile.TemporaryDirectory(prefix="nanoq-marking-") as folder:
            self._folder = Path(folder)
            return super().preprocess(nb, resources, km)

    def _seconds_left(self) -> int:
        """Whole seconds for the notebook's other cells; not rounded down, or they would end before its deadline."""
        return math.ceil(self._deadline - time.monotonic())

    def preprocess_cell(self, cell: NotebookNode, resources: dict, index: int) -> tuple[NotebookNode, dict]:
        """Run a cell in the kernel, or judge the answer that it checks."""
        if cell.cell_type == "code":
            cell.metadata.pop("tags", None)  # one of them would skip the cell
            wanted = checked(cell.source) if cell.metadata.get("nbgrader", {}).get("grade") else None
            if wanted:
                cell.outputs = [self._judged(*wanted, index)]
            elif problem := self._run(cell, index):
                cell.outputs = [failed(problem)]
            self.nb.cells[index] = cell  # where `execute_cell` puts what it has run
        return cell, resources

    def _run(self, cell: NotebookNode, index: int) -> str:
        """Run a cell if there is still a kernel; say what came between."""
        if not self._ended and time.monotonic() > self._deadline:
            self._end(f"the {self.notebook_timeout} seconds for this notebook were over before this cell")
        if self._ended:
            return f"not run: {self._ended}"
        if not self._limited:
            limit_memory(self.km.provisioner.pid, self.memory_gb)
            self._limited = True
        try:
            self.execute_cell(cell, index, store_history=True)
            if any(output.get("ename") == "CellTimeoutError" for output in cell.outputs):
                self._ask(index)
        except (DeadKernelError, CellTimeoutError, RuntimeError) as error:
            self._end("the kernel had died" if isinstance(error, DeadKernelError) else
                      "the kernel did not answer after its time was up")  # fmt: skip
            return f"the kernel was lost in this cell: {self._ended}"
        return ""

    def _ask(self, index: int) -> None:
        """Look whether a kernel that was interrupted answers again; raises what `execute_cell` does if not."""
        limits, self.timeout_func = self.timeout_func, lambda cell: ANSWERS
        try:
            probe = new_code_cell("None")
            self.execute_cell(probe, index, store_history=False)
            if any(output.get("ename") == "CellTimeoutError" for output in probe.outputs):
                raise RuntimeError("no answer")
        finally:
            self.timeout_func = limits

    def _end(self, why: str) -> None:
        self._ended = why
        with suppress(psutil.NoSuchProcess, RuntimeError):
            psutil.Process(self.km.provisioner.pid).kill()

    def _judged(self, name: str, exercise_id: str, seed: int | None, answer: str, index: int) -> NotebookNode:
        """The output of a check: one line if the answer is right, and an error if not."""
        path = self._folder / f"{index}.json"
        cell = new_code_cell(f"{HAND_OVER}({exercise_id if name == 'check' else None!r}, {answer}, {str(path)!r})")
        problem = self._run(cell, index)
        try:
            if problem:
                raise CheckFailed(problem)
            gathered = take(path)
            if name == "grade":
                return said(grade(exercise_id, seed, gathered.value))
            verdict = assess(find_exercise(exercise_id), gathered)
        except FileNotFoundError:
            errors = [output for output in cell.outputs if output.output_type == "error"]
            reason = f"{errors[-1].ename}: {errors[-1].evalue}" if errors else "its cells took the checks away"
            verdict = Verdict("broken", f"✗ {exercise_id}: nothing was handed over ({reason:.200})")
        except Exception as error:  # of a comparison with what somebody made up, too: no points
            verdict = Verdict("broken", str(error) if isinstance(error, CheckFailed) else f"✗ {exercise_id}: {error}")
        return said(verdict.line) if verdict.kind == "right" else failed(verdict.line)


def checked(source: str) -> tuple[str, str, int | None, str] | None:
    """What a check of the course asks in a cell: its name, the exercise or question, a seed, and the answer's code."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a magic command, in a cell of the lecturer's own
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            constants = [each.value for each in node.args[:-1] if isinstance(each, ast.Constant)]
            if (node.func.id, len(constants), len(node.args)) in (("check", 1, 2), ("grade", 2, 3)):
                return node.func.id, constants[0], (*constants, None)[1], ast.unparse(node.args[-1])
    return None


def said(line: str) -> NotebookNode:
    """An output of one line; nbgrader gives all points for it."""
    return new_output("stream", name="stdout", text=f"{line}\n")


def failed(line: str) -> NotebookNode:
    """An error with one line; nbgrader gives no points for it."""
    line = line[:LONGEST]
    return new_output("error", ename=CheckFailed.__name__, evalue=line, traceback=[f"{CheckFailed.__name__}: {line}"])
