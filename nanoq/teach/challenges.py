"""Open challenges: bronze, silver and gold, and a learner's own attempts, which the cache folder keeps."""

import math
from datetime import date

from nanoq.teach import records

MEDALS = ("gold", "silver", "bronze")
SHOWN = 5


def challenge(name: str, score: float, *, bronze: float, silver: float, gold: float, by: str = "") -> None:
    """Enter an attempt at an open challenge, and print its medal and the learner's best attempts, each of them once.

    Whether a low or a high score is good follows from the medals: gold is below bronze, or above it.

    Args:
        name: Of the challenge, `"04.smallest"`; attempts are kept under it.
        score: What the attempt has reached.
        bronze: The score that earns it; equal is enough.
        silver: The same.
        gold: The same.
        by: What was tried, in a few words.

    Raises:
        ValueError: If the score is no finite number, or the medals are not in order.
    """
    sign = 1 if gold < bronze else -1
    if not sign * gold < sign * silver < sign * bronze:
        raise ValueError(f"bronze {bronze}, silver {silver} and gold {gold} are not in order")
    if not math.isfinite(score):
        raise ValueError(f"the score of an attempt is a finite number, not {score}")
    thresholds = dict(zip(MEDALS, (gold, silver, bronze), strict=True))

    def medal(reached: float) -> str:
        return next((name for name in MEDALS if sign * reached <= sign * thresholds[name]), "none yet")

    attempts = records.read("challenges")
    mine = [attempt for attempt in attempts.get(name, ()) if (attempt["score"], attempt["by"]) != (score, by)]
    attempts[name] = [*mine, {"score": float(score), "by": by, "on": date.today().isoformat()}]
    records.write("challenges", attempts)
    print(f"{name}: {score:.6g}, medal: {medal(score)}")
    if medal(score) != "gold":
        better = next(name for name in reversed(MEDALS) if sign * score > sign * thresholds[name])
        print(f"{better} is at {thresholds[better]:.6g}")
    best = sorted(attempts[name], key=lambda attempt: sign * attempt["score"])[:SHOWN]
    for place, attempt in enumerate(best, start=1):
        words = f"{attempt['score']:>12.6g}  {medal(attempt['score']):8}  {attempt['on']}  {attempt['by']}"
        print(f"{place}. {words.rstrip()}")
