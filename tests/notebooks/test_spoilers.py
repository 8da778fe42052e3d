"""No exercise whose answer stands in view: what a solution computes is computed nowhere else in the student edition."""

import ast
import copy
import re
from collections.abc import Iterator

from nanoq.teach.course import COURSE

SUBSTANCE = 3  # calls, operators and attributes; less is no secret


def expressions(code: str) -> Iterator[ast.expr]:
    """All expressions of a cell; none if it is not Python."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.expr))


def normal_form(node: ast.expr) -> str:
    """An expression without the names of its variables, so that `w.max() / 127` is `weight.max() / 127`."""
    node = copy.deepcopy(node)
    called = {id(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and id(part) not in called:
            part.id = "_"
    return ast.unparse(node)


def substantial(node: ast.expr) -> bool:
    """Whether an expression is more than a name, a number or one step."""
    steps = (ast.Call, ast.BinOp, ast.Compare, ast.Attribute, ast.Subscript, ast.UnaryOp)
    return sum(isinstance(part, steps) for part in ast.walk(node)) >= SUBSTANCE


def answers(build, code: str) -> set[str]:
    """What the solutions of a cell compute, statement by statement."""
    inside = {line for region in build.REGION.finditer(code)
              for line in range(code.count("\n", 0, region.start()) + 1, code.count("\n", 0, region.end()) + 2)}
    statements = (node for node in ast.walk(ast.parse(code)) if getattr(node, "lineno", 0) in inside)
    values = (node.value for node in statements if isinstance(node, (ast.Return, ast.Assign, ast.AugAssign, ast.Expr)))
    return {normal_form(value) for value in values if value and substantial(value)}


def in_view(build, source) -> Iterator[str]:
    """The exercises of a source whose answer stands in another cell of its student edition."""
    template = build.read_source(source)
    student = build.edition(template, build.student_code)
    shown = set()
    for cell in student.cells:
        # what is set as code, in a line of prose too
        snippets = [cell.source] if cell.cell_type == "code" else re.findall(r"`([^`\n]+)`", cell.source)
        shown |= {normal_form(node) for text in snippets for node in expressions(text) if substantial(node)}
    waiting = set()
    for cell in template.cells:
        if cell.cell_type == "code":
            waiting |= answers(build, cell.source) if build.REGION.search(cell.source) else set()
            for exercise in build.learner.CHECK.findall(cell.source):
                if waiting & shown:
                    yield exercise[3:]
                waiting = set()


def test_no_answer_stands_elsewhere_in_the_student_edition(build, notebooks):
    sources = [notebooks / "source" / f"{notebook.slug}.py" for notebook in COURSE]
    found = {name for source in sources for name in in_view(build, source)}
    assert found == set(), "the answers to these stand in view"


def test_an_answer_under_other_names_is_found(build, tmp_path):
    source = tmp_path / "99_tiny.py"
    solution = "def f(w):\n    ### BEGIN SOLUTION\n    return w.abs().max() / 127\n    ### END SOLUTION"
    for other, found in (("top = weight.abs().max() / 127", ["f"]), ("top = weight.abs().max() / 7", [])):
        source.write_text(f"# %%\n1\n\n# %%\n{solution}\n\n# %%\ncheck(\"99.f\", f)\n\n# %%\n{other}\n")
        assert list(in_view(build, source)) == found
