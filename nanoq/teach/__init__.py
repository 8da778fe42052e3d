"""What the notebooks are taught with: exercise checks, plots, run-time profiles, the leaderboard."""

from nanoq.teach.check import CheckFailed, check
from nanoq.teach.plots import show, use_style
from nanoq.teach.profile import pick, profile

__all__ = ["CheckFailed", "check", "pick", "profile", "show", "use_style"]
