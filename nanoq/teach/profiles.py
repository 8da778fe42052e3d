"""Run-time profiles: how many steps and samples a notebook spends, never which code it runs."""

import os
from typing import TypeVar

T = TypeVar("T")

PROFILES = ("ci", "lab", "full")


def profile() -> str:
    """Return the active profile, read from `NANOQ_PROFILE`.

    Returns:
        `"ci"` (seconds: does it run?), `"lab"` (minutes on two cores, the default, what the committed
        outputs show) or `"full"` (as long as the best numbers need).

    Raises:
        ValueError: If `NANOQ_PROFILE` holds anything else.
    """
    name = os.environ.get("NANOQ_PROFILE", "lab")
    if name not in PROFILES:
        raise ValueError(f"NANOQ_PROFILE is {name!r}, but must be one of {', '.join(PROFILES)}.")
    return name


def pick(*, ci: T, lab: T, full: T) -> T:
    """Return the value for the active profile.

    Example:
        `steps = pick(ci=10, lab=300, full=3000)`
    """
    return {"ci": ci, "lab": lab, "full": full}[profile()]
