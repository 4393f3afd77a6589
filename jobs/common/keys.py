"""The layout of the storage: the only place that builds keys."""

import hashlib

LEASES = "leases"
CLASS_CONDITIONAL = "all-classes"
RESERVED_LABELS = frozenset({CLASS_CONDITIONAL, "classifiers"})
# Settings that identify a step within a run, but do not affect its method.
PLACES = frozenset({"fold", "label", "network", "regime", "control", "seed"})


def dataset(dataset_id: str) -> str:
    """Return the prefix of a dataset: images, index and quarantine."""
    return f"datasets/{dataset_id}"


def source(name: str) -> str:
    """Return the key of the record of files that were read: their versions and digests."""
    return f"sources/{name}.json"


def phantoms(image_size: int, first: int, count: int) -> str:
    """Return the prefix of `count` phantoms from number `first` on."""
    return f"phantoms/{image_size}/{first:06d}-{count}"


def pretrained(name: str) -> str:
    """Return the prefix of the weights of a network pretrained on phantoms; of all if `name` is empty."""
    return f"pretrained/{name}".rstrip("/")


def run(name: str) -> str:
    """Return the prefix of everything that belongs to a run; of all runs if `name` is empty."""
    return f"runs/{name}".rstrip("/")


def fold(run: str, fold: int | str) -> str:
    """Return the prefix of one fold of a run; fold may be 'all'."""
    return f"runs/{run}/fold-{fold}"


def gan(run: str, fold: int | str, label: str) -> str:
    """Return the prefix of the generator for one class, or for CLASS_CONDITIONAL all of them; fold may be 'all'."""
    return f"runs/{run}/fold-{fold}/{label}/gan"


def synthetic(run: str, fold: int | str, label: str) -> str:
    """Return the prefix of the synthetic images of one class."""
    return f"runs/{run}/fold-{fold}/{label}/synthetic"


def synthetic_image(number: int) -> str:
    """Return the name of synthetic image `number` in its shard."""
    return f"{number:06d}.png"


def image(id: str) -> str:
    """Return the name of the image `id` of a dataset in its shard."""
    return f"{id}.png"


def plan(name: str) -> str:
    """Return the key of a plan: the tasks of a run."""
    return f"plans/{name}.json"


def classifier(run: str, fold: int | str, network: str, regime: str, seed: int) -> str:
    """Return the prefix of one trained classifier; the regime of a control is 'real-permuted' or 'real-leaky'."""
    return f"runs/{run}/fold-{fold}/classifiers/{network}-{regime}-seed-{seed}"


def controlled(regime: str, control: str) -> str:
    """Return the regime of a classifier as used in keys: with the control, unless that is 'none'."""
    return regime if control == "none" else f"{regime}-{control}"


def done(digest: str) -> str:
    """Return the key of a pointer to the finished step of this digest, for reuse in other runs."""
    return f"done/{digest}"


def lease(prefix: str) -> str:
    """Return the key of the lease of the process that works on the step `prefix`."""
    return f"{LEASES}/{hashlib.sha256(prefix.encode()).hexdigest()[:20]}.json"


def report(run: str) -> str:
    """Return the prefix of a run's report."""
    return f"runs/{run}/report"


def champion(name: str) -> str:
    """Return the key of the champion's record for the dataset called `name`."""
    return f"champions/{name}.json"


def activity(name: str) -> str:
    """Return the key of the times at which runs on the dataset called `name` began and succeeded."""
    return f"activity/{name}.json"


def check(name: str) -> str:
    """Return the key of an object that `mrigan check` writes and deletes."""
    return f"checks/{name}"
