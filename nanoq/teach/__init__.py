"""What the notebooks are taught with: exercise checks, plots, run-time profiles, the leaderboard."""

from nanoq.files import place_matplotlib_cache

place_matplotlib_cache()  # before anything below imports it

from nanoq.teach.challenges import challenge  # noqa: E402
from nanoq.teach.checks import CheckFailed, check  # noqa: E402
from nanoq.teach.plots import figure, show, use_style  # noqa: E402
from nanoq.teach.profiles import pick, profile  # noqa: E402
from nanoq.teach.using import use  # noqa: E402

__all__ = ["CheckFailed", "challenge", "check", "figure", "pick", "profile", "show", "use", "use_style"]
