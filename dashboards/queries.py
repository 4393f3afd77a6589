"""PromQL that several panels share."""


def grown(counter: str) -> str:
    """Return the increase of a counter in the time range, including the initial value of series that start in it."""
    began = f"last_over_time({counter}[$__range]) unless {counter} offset $__range"
    return f"{began} or increase({counter}[$__range])"


def last(gauge: str) -> str:
    """Return the last value of each series; series of killed and restarted pods count once."""
    return f"max without (instance, pod) (last_over_time({gauge}[$__range]))"


def step(counter: str, by: str = "") -> str:
    """Return the increase of a sum of counters since the previous point; a missing counter counts as 0."""
    total = f"sum{by} ({counter}"
    return f"{total}) - ({total} offset $__interval) or 0 * {total}))"


def burst(counter: str) -> str:
    """Return the increase of the counters of all pods since the previous point, including new counters."""
    top = f"max_over_time({counter}[$__interval])"
    return f"sum(clamp_min({top} - ({counter} offset $__interval or 0 * {top}), 0))"
