"""What a learner writes is what runs: `use` gives the answer itself if it is right, and else the course's."""

import torch
from torch import Tensor, nn

from nanoq.teach.checks import find_exercise, judge


def use(exercise_id: str, answer: object) -> object:
    """Return the answer to an exercise if it is right; else say so, and return the course's own.

    The cells that follow an exercise go on with what this returns, under another name than the learner's:

        my_codes = use("04.codes", to_codes)

    Args:
        exercise_id: For example `"04.codes"`.
        answer: The function or the value that the exercise asks for.

    Raises:
        ValueError: If there is no such exercise.
    """
    exercise = find_exercise(exercise_id)
    passed, line = judge(exercise, answer)
    if passed:
        return answer
    state = "not written yet" if line.startswith("–") else "not right yet"
    print(f"Your answer to {exercise_id} is {state}, so the cells below use the course's.")
    return exercise.reference


@torch.no_grad()
def same(mine: nn.Module, package: nn.Module, x: Tensor) -> float:
    """Put the package's weights into `mine`, print how far apart the outputs of both for `x` are, and return it.

    Raises:
        RuntimeError: If the weights of the two have other names or shapes.
    """
    mine.load_state_dict(package.state_dict())
    gap = float((mine(x) - package(x)).abs().max())
    print(f"{type(mine).__name__}, input {tuple(x.shape)}: the outputs differ by at most {gap:.0e}")
    return gap
