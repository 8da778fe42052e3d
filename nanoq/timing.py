"""A stopwatch: the shortest times of functions that take turns, so that all of them meet the same machine."""

import time

import torch


def measure(functions: dict, seconds: float, rounds: int = 3) -> dict:
    """The shortest time of each function in seconds, as `time_in_turn` takes them."""
    return {name: min(times) for name, times in time_in_turn(functions, seconds, rounds).items()}


@torch.inference_mode()
def time_in_turn(functions: dict, seconds: float, rounds: int = 3) -> dict[object, list[float]]:
    """All times of each function, in seconds; they take turns, so that they share what else the machine does.

    It stops after `seconds`, but not before each was called once to warm up and `rounds` times to be timed.
    """
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    end, done = time.perf_counter() + seconds, 0
    while done < rounds or time.perf_counter() < end:
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
        done += 1
    return times
