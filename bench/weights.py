"""Make the packaged weights: python -m bench.weights --data FOLDER [--storage FOLDER].

Draws phantoms, pretrains MobileNetV2 with the default settings, and writes the weights in float16 with their card to
jobs/classifier/weights. The card has the settings, the digest, the hardware, and how well the weights read the images
of FOLDER. The same code makes the same bytes on the same kind of hardware. After a change of the weights, increase
RESULTS_VERSION in jobs/common/step.py.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.quality import command
from jobs import draw_phantoms, preprocess, pretrain
from jobs.classifier import healthy, metrics, networks, starting
from jobs.classifier.predictions import of_rows
from jobs.common.step import RESULTS_VERSION
from jobs.mri.dataset import Dataset, open_dataset
from jobs.settings import DrawPhantomsSettings, PreprocessSettings, PretrainSettings

FIGURES = ("accuracy", "balanced_accuracy", "roc_auc")
RESAMPLES = 2000


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the weights and their card; return the exit code of mrigan's jobs."""
    given = command.parser("python -m bench.weights", __doc__).parse_args(arguments)

    def work() -> None:
        settings = PretrainSettings(storage=given.storage)
        draw_phantoms.run(DrawPhantomsSettings.of(settings))
        step = pretrain.run(settings)
        data = networks.in_half_precision(step.read(starting.WEIGHTS))
        prepared = preprocess.run(PreprocessSettings.of(settings, data=given.data))
        dataset = open_dataset(prepared.storage, prepared.prefix.rpartition("/")[2])
        card = {
            "settings": step.settings,
            "results_version": RESULTS_VERSION,
            "digest": hashlib.sha256(data).hexdigest(),
            "pretrained": step.digest,
            "seconds": step.manifest["seconds"],
            "hardware": step.manifest["hardware"],
            "versions": step.manifest["versions"],
            "read": read(data, dataset),
        }
        path = starting.PACKAGED / f"{settings.network}-{settings.image_size}.safetensors"
        path.write_bytes(data)
        path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
        print(starting.in_words(card))

    return command.finish("bench.weights", work)


def read(weights: bytes, dataset: Dataset) -> dict[str, Any]:
    """Return how well the weights tell the images of a dataset of two classes with and without a lesion.

    The intervals come from a bootstrap over groups within folds. Raises UserError if no class is healthy by its name.
    """
    without = healthy.resolve(healthy.AUTO, dataset.labels)
    rows = sorted(dataset.rows, key=lambda row: row.id)
    model, _ = networks.load_classifier(weights)
    truth = np.array([int(row.label != without) for row in rows])
    found = of_rows(rows, starting.LABELS, truth, networks.predict(model, dataset.pixels(rows)))
    drawn = metrics.bootstrap([found], RESAMPLES, 0)
    estimates = {name: metrics.estimate(drawn, name) for name in FIGURES}
    return {
        "images": len(rows),
        "groups": len({row.group for row in rows}),
        "largest_class": round(max(truth.mean(), 1 - truth.mean()), 4),
        "figures": {
            name: {key: round(float(getattr(one, key)), 4) for key in ("value", "low", "high")}
            for name, one in estimates.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
