"""Where the notebooks are that a learner works on."""

import shutil
from pathlib import Path

import nanoq
from nanoq.files import atomic_path

_PACKAGE = Path(nanoq.__file__).resolve().parent


def find_notebook(number: int, folder: Path | None = None) -> Path:
    """Return the notebook to open, in a folder that holds all of them.

    Args:
        number: Which, from 0.
        folder: Where to work. Notebooks that are not there are copied, with the glossary that they link to; those that
            are there stay as they are. By default the `notebooks` of a checkout themselves, and `nanoq-course` in the
            working directory where nanoq was installed from a wheel, which carries them inside the package.

    Raises:
        ValueError: If there is no such notebook.
    """
    inside, beside = _PACKAGE / "notebooks", _PACKAGE.parent / "notebooks"
    shipped = inside if inside.is_dir() else beside
    notebooks = {int(path.name[:2]): path for path in sorted(shipped.glob("[0-9][0-9]_*.ipynb"))}
    if number not in notebooks:
        raise ValueError(f"no notebook {number:02}; there are {', '.join(f'{there:02}' for there in notebooks)}")
    if folder is None and shipped == beside:
        return notebooks[number]
    folder = folder or Path("nanoq-course")
    for path in [*notebooks.values(), *shipped.glob("glossary.md")]:
        if not (folder / path.name).exists():
            with atomic_path(folder / path.name) as temporary:
                shutil.copyfile(path, temporary)
    return folder / notebooks[number].name
