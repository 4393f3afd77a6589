"""Random seeds for every purpose, drawn from the one seed in the settings."""

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """Return a seed in [0, 2**31) for the purpose that `names` spell.

    The digest keeps purposes independent of one another and of the order in which they are asked for.
    """
    text = "\x1f".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
