"""The command `nanoq`, and `python -m nanoq` where its script is not on the path."""

import sys


def main() -> None:
    """Run the command line, or say in one sentence what it lacks."""
    try:
        from nanoq.cli import app
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("typer", "rich", "psutil"):
            raise
        sys.exit(f'error: the command nanoq needs {package}, which is not installed: pip install "nanoq[cli]"')
    app(prog_name="nanoq")


if __name__ == "__main__":
    main()
