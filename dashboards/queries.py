"""PromQL that several panels share."""


def grown(counter: str) -> str:
    """Return what a counter grew by in the dashboard's time, with what it began at where it began in that time."""
    began = f"last_over_time({counter}[$__range]) unless {counter} offset $__range"
    return f"{began} or increase({counter}[$__range])"


def last(gauge: str) -> str:
    """Return the last value of each series, those of killed and restarted pods counted once."""
    return f"max without (instance, pod) (last_over_time({gauge}[$__range]))"


def step(counter: str, by: str = "") -> str:
    """Return what a sum of counters grew by since the point before, where one that was not there counts as 0."""
    total = f"sum{by} ({counter}"
    return f"{total}) - ({total} offset $__interval) or 0 * {total}))"


def burst(counter: str) -> str:
    """Return what the counters of all pods grew by since the point before, those among them that have just begun."""
    top = f"max_over_time({counter}[$__interval])"
    return f"sum(clamp_min({top} - ({counter} offset $__interval or 0 * {top}), 0))"
