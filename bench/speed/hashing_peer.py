"""imagededup on a folder of images: python -m bench.speed.hashing_peer FOLDER, in the environment of the peers.

Prints JSON: the processor seconds, and for each distance of hashes, in bits, the pairs of files that are at most as far
apart. The hash is PHash, of 64 bits. The package's CNN needs weights from the Internet.
"""

import json
import resource
import sys
from pathlib import Path

from imagededup.methods import PHash

DISTANCES = (0, 4, 10)  # 10 is the package's default


def main(folder: str) -> None:
    """Measure, and print."""
    began = core_seconds()
    method = PHash(verbose=False)
    hashes: dict[str, str] = {}
    for label in sorted(Path(folder).iterdir()):
        found = method.encode_images(image_dir=label, num_enc_workers=0)
        hashes |= {f"{label.name}/{name}": value for name, value in found.items()}
    near = method.find_duplicates(
        encoding_map=hashes, max_distance_threshold=max(DISTANCES), scores=True, num_dist_workers=0
    )
    seconds = core_seconds() - began
    apart = {tuple(sorted((name, other))): bits for name, others in near.items() for other, bits in others}
    pairs = {limit: [pair for pair, bits in apart.items() if bits <= limit] for limit in DISTANCES}
    print(json.dumps({"seconds": seconds, "pairs": pairs}))


def core_seconds() -> float:
    """Return the processor time of this process and of the processes that it started, which have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main(sys.argv[1])
