"""Where things lie in storage: the only place that spells a key."""

CLASS_CONDITIONAL = "all-classes"
RESERVED_LABELS = frozenset({CLASS_CONDITIONAL, "classifiers"})
# Settings that say which part of a run a step is, not how it is done.
PLACES = frozenset({"fold", "label", "network", "regime", "control", "seed", "synthetic_first"})


def dataset(dataset_id: str) -> str:
    """Return the prefix of a dataset: images, index and quarantine."""
    return f"datasets/{dataset_id}"


def source(name: str) -> str:
    """Return the key of what is known of files that were read: their versions and digests."""
    return f"sources/{name}.json"


def phantoms(image_size: int, count: int) -> str:
    """Return the prefix of the drawn heads that classifiers learn beside their images."""
    return f"phantoms/{image_size}-{count}"


def pretrained(name: str) -> str:
    """Return the prefix of the weights that a network learned from phantoms alone."""
    return f"pretrained/{name}"


def gan(run: str, fold: int | str, label: str) -> str:
    """Return the prefix of the generator for one class, or for CLASS_CONDITIONAL all of them; fold may be 'all'."""
    return f"runs/{run}/fold-{fold}/{label}/gan"


def synthetic(run: str, fold: int | str, label: str, first: int = 0) -> str:
    """Return the prefix of the synthetic images of one class, from number `first` on."""
    return f"runs/{run}/fold-{fold}/{label}/synthetic" + (f"-{first:06d}" if first else "")


def synthetic_image(number: int) -> str:
    """Return the name of synthetic image `number` below its prefix."""
    return f"images/{number:06d}.png"


def classifier(run: str, fold: int | str, network: str, regime: str, seed: int) -> str:
    """Return the prefix of one trained classifier; the regime of a control is 'real-permuted' or 'real-leaky'."""
    return f"runs/{run}/fold-{fold}/classifiers/{network}-{regime}-seed-{seed}"


def controlled(regime: str, control: str) -> str:
    """Return the regime of a classifier as keys spell it: with the control, unless that is 'none'."""
    return regime if control == "none" else f"{regime}-{control}"


def done(digest: str) -> str:
    """Return the key of the prefix at which a step of this digest was done, for other runs that ask for it."""
    return f"done/{digest}"


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
