"""Dataset, fold and class -> a generator of that class, trained on the fold's training images only.

Reads   datasets/<id>/.
Writes  runs/<run>/fold-<fold>/<label>/gan/: generator.safetensors, losses.csv, samples/epoch-<n>.png, manifest.json;
        checkpoints/ while it trains.

What another run trained from the same images with the same settings of the GAN is copied.

A job that is stopped (SIGTERM, Ctrl-C, kill) goes on when it is started again, and ends with the same bytes as one
that never was.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic

from jobs.common import keys, logs, progress, tables
from jobs.common import metrics as prometheus
from jobs.common.errors import UserError
from jobs.common.settings import (
    NAME,
    CheckpointSettings,
    ExecutionSettings,
    Settings,
    Several,
    StorageSettings,
    setting,
    split,
)
from jobs.common.step import Step, read_outputs
from jobs.common.storage import open_storage

if TYPE_CHECKING:
    import numpy as np

    from jobs.mri.dataset import Dataset

log = logging.getLogger("mrigan.train-gan")

STABILIZERS = ("augmentation", "gradient-penalty", "moving-average", "patches", "reconstruction", "relativistic")
PLAIN_LEARNING_RATE = 2e-4  # Adam's, of the plain DCGAN: Radford et al., ICLR 2016, https://arxiv.org/abs/1511.06434
SAMPLES = "samples"
GRID = 8  # samples a side
FETCH_STEPS = 64  # steps between fetches of the losses from the device
LOG_SECONDS = 60
# What jobs.gan.training.METRICS are called in jobs.common.metrics.
FIGURES = (
    ("loss", "generator"),
    ("loss", "discriminator"),
    ("discriminator_accuracy_ratio", "real"),
    ("discriminator_accuracy_ratio", "fake"),
)


class GanSettings(Settings):
    """How a GAN is trained."""

    gan_epochs: int = setting(
        800, "passes over a class's training images: for hundreds of images many, for thousands few", ge=1
    )
    gan_width: int = setting(64, "channels of the GAN's outermost feature maps; inner ones have up to 8 x", ge=1)
    latent: int = setting(64, "length of the latent vectors", ge=1)
    gan_batch: int = setting(32, "images of a training step", unit="images", ge=2)
    gan_learning_rate: float = setting(
        1e-3, "learning rate of both networks (Adam); plain DCGAN: 0.0002 unless given", gt=0
    )
    gan_stabilizers: Annotated[
        tuple[
            Literal[
                "augmentation",
                "gradient-penalty",
                "moving-average",
                "patches",
                "reconstruction",
                "relativistic",
                "spectral-norm",
            ],
            ...,
        ],
        Several,
    ] = setting(
        STABILIZERS, "what keeps training on few images stable; none: plain DCGAN, with dropout in the discriminator"
    )
    gan_conditional: bool = setting(False, "one class-conditional GAN for all classes instead of one for each")
    sample_every: int = setting(100, "interval of the sample grids", unit="epochs", ge=1)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _plain_learning_rate(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Before validation, so that the rate stands in every copy of the settings and in the manifest.
        plain = split(values.get("gan_stabilizers", STABILIZERS)) == ()
        return {"gan_learning_rate": PLAIN_LEARNING_RATE} | values if plain else values


class TrainGanSettings(GanSettings, StorageSettings, ExecutionSettings, CheckpointSettings):
    """What train-gan can be told."""

    dataset: str = setting(..., "dataset's id: preprocess prints it", result=False, pattern=NAME)
    run: str = setting(..., "name of the run that this generator belongs to", result=False, pattern=NAME)
    fold: int | Literal["all"] = setting(..., "fold whose images are held out; all: none are")
    label: str = setting("", "class to draw; not with --gan-conditional")
    seed: int = setting(0, "where all randomness comes from", ge=0)


def run(settings: TrainGanSettings) -> Step:
    """Train the GAN unless it is done; return its step, whose facts say how long it took.

    Raises UserError for a class, fold or image size that cannot be trained and for a loss that is not finite,
    Interrupted after a signal, with a checkpoint written.
    """
    from jobs.mri.dataset import open_dataset

    storage = open_storage(settings.storage)
    dataset = open_dataset(storage, settings.dataset)
    labels = _labels(settings, dataset)
    place = keys.CLASS_CONDITIONAL if settings.gan_conditional else settings.label
    step = Step(
        storage,
        keys.gan(settings.run, settings.fold, place),
        job="train-gan",
        settings=settings.result() | {"label": place},
        inputs={"dataset": dataset.digest},
        shared=True,
    )
    if step.finished():
        log.info("fold %s, %s: the generator is there already", settings.fold, place)
        return step
    rows = [row for row in dataset.training(settings.fold) if row.label in labels]
    if not rows:
        raise UserError(f"fold {settings.fold} has no training image of {place}: prepare the dataset with fewer folds")
    step.forget()
    train(settings, step, dataset.pixels(rows), [labels.index(row.label) for row in rows], labels)
    return step


def _labels(settings: TrainGanSettings, dataset: "Dataset") -> tuple[str, ...]:
    """Return the classes to draw."""
    if settings.gan_conditional:
        if settings.label not in ("", keys.CLASS_CONDITIONAL):
            raise UserError("--label: a class-conditional GAN draws every class: leave it out")
        return dataset.labels
    if settings.label not in dataset.labels:
        raise UserError(f"--label: one of {', '.join(dataset.labels)}, not {settings.label!r}")
    return (settings.label,)


def train(
    settings: TrainGanSettings, step: Step, pixels: "np.ndarray", classes: list[int], labels: tuple[str, ...]
) -> None:
    """Train on uint8 [n, size, size] of the class indices `classes`, write all outputs and finish `step`."""
    from jobs.common import hardware
    from jobs.common.checkpoint import Checkpoints

    hw = hardware.configure(settings)

    import numpy as np
    import tensorflow as tf

    from jobs.gan import grid, networks, training

    # ---- networks -------------------------------------------------------------------------------------------------
    count = len(pixels)
    per_epoch = training.steps_per_epoch(count, settings.gan_batch)
    last = settings.gan_epochs * per_epoch
    anchors = count if "reconstruction" in settings.gan_stabilizers else 0
    config = networks.GanConfig(pixels.shape[1], settings.gan_width, settings.latent, labels, anchors)
    options = training.Options(
        seed=settings.seed,
        steps=last,
        batch=settings.gan_batch,
        learning_rate=settings.gan_learning_rate,
        augmentation="augmentation" in settings.gan_stabilizers,
        gradient_penalty="gradient-penalty" in settings.gan_stabilizers,
        moving_average="moving-average" in settings.gan_stabilizers,
        patches="patches" in settings.gan_stabilizers,
        relativistic="relativistic" in settings.gan_stabilizers,
        spectral_normalization="spectral-norm" in settings.gan_stabilizers,
        precision=hw.precision,
        xla=hw.xla,
    )
    images, indices = pixels[..., None], np.array(classes, np.int32)
    state = training.new_state(config, options, indices)
    train_steps = training.train_function(state, config, options)

    # ---- schedule -------------------------------------------------------------------------------------------------
    samples = {epoch * per_epoch: epoch for epoch in _sampled(settings)}
    latents, sample_labels = training.fixed_latents(config, options.seed, GRID * GRID)

    # ---- where a former start left off ----------------------------------------------------------------------------
    checkpoints = Checkpoints(step, settings.checkpoint_steps, settings.checkpoint_seconds)
    now, metrics, seconds_before = 0, np.zeros((0, len(training.METRICS)), np.float32), 0.0
    kept: dict[str, str] = {}
    restored = checkpoints.restore()
    if restored:
        arrays, meta = restored
        state.load(arrays)
        metrics, seconds_before = arrays["metrics"], float(meta["seconds"])
        kept = json.loads(meta["samples"])
        now = len(metrics)
        log.info("going on after step %d of %d", now, last)
    _keep_samples(step, kept)

    # ---- training -------------------------------------------------------------------------------------------------
    what = f"fold {settings.fold}, {', '.join(labels)}"
    log.info("%s: a DCGAN learns %d images, %d epochs of %d steps", what, count, settings.gan_epochs, per_epoch)
    told = prometheus.Training("gan", settings.gan_epochs, now // per_epoch, now)
    first, started, warm = now, time.monotonic(), 0.0
    pending: list[tf.Tensor] = []
    with checkpoints, _reporting(now, last) as report:
        while now < last:
            stop = min(now + training.steps_per_call(config.image_size), last, *(at for at in samples if at > now))
            chosen = training.batches(options.seed, count, options.batch, now, stop)
            with prometheus.gpu_use():
                pending.append(
                    train_steps(images[chosen], indices[chosen], np.int32(chosen), tf.constant(now, tf.int64))
                )
            now = stop

            sampled, due = now in samples, checkpoints.due(now)
            if now - len(metrics) < FETCH_STEPS and not sampled and not due:
                continue
            with prometheus.gpu_use():
                fetched = tf.concat(pending, 0).numpy()
            pending.clear()
            bad = training.first_not_finite(fetched)
            whole, before = len(metrics) // per_epoch, len(metrics)
            metrics = np.concatenate([metrics, fetched[:bad]])
            _tell_epochs(told, training.epoch_rows(metrics[whole * per_epoch :], per_epoch), whole, settings)
            if bad is not None:
                # What led there, as far as whole epochs tell of it.
                step.write("losses.csv", _losses_csv(metrics, per_epoch))
                told.epoch(dict(zip(FIGURES, map(float, fetched[bad]), strict=True)))
                raise UserError(_not_finite(before, bad, len(fetched), settings))
            told.steps(now, now // per_epoch, len(fetched) * options.batch)
            report(now, fetched)
            if not warm:
                warm, first = time.monotonic(), now
            if sampled:
                training.settle(state.average, config, options.seed)
                drawn = networks.to_uint8(networks.sample(state.average, latents, sample_labels))
                step.write(_sample_name(samples[now]), grid.grid_png(drawn[..., 0], GRID))
                # The same file at the end: until then it shows how far the training is.
                step.write("losses.csv", _losses_csv(metrics, per_epoch))
            if due:
                seconds = seconds_before + time.monotonic() - started
                own = {name: found for name, found in step.written.items() if name.startswith(f"{SAMPLES}/")}
                meta = {"seconds": f"{seconds:.1f}", "samples": json.dumps(own)}
                checkpoints.save(now, state.arrays() | {"metrics": metrics}, meta)

    # ---- outputs --------------------------------------------------------------------------------------------------
    ended = time.monotonic()
    per_step = (ended - warm) / (now - first) if now > first else None
    step.write("losses.csv", _losses_csv(metrics, per_epoch))
    step.write("generator.safetensors", networks.save_generator(state.average, config))
    step.finish(
        hardware=hw.record(),
        images=count,
        epochs=settings.gan_epochs,
        steps=last,
        training_seconds=round(seconds_before + ended - started, 1),
        seconds_per_step=per_step and round(per_step, 5),
        images_per_second=per_step and round(options.batch / per_step, 1),
        generator_parameters=int(state.average.count_params()),
    )
    checkpoints.clear()


def _sampled(settings: GanSettings) -> list[int]:
    """Return the epochs after which samples are drawn: every so often, and the last."""
    return sorted({*range(settings.sample_every, settings.gan_epochs, settings.sample_every), settings.gan_epochs})


def _sample_name(epoch: int) -> str:
    return f"{SAMPLES}/epoch-{epoch:06d}.png"


def _keep_samples(step: Step, digests: dict[str, str]) -> None:
    """Take over the samples of a former start, and remove those of other settings."""
    for key in step.storage.list(f"{step.prefix}/{SAMPLES}"):
        if key.removeprefix(f"{step.prefix}/") not in digests:
            step.storage.delete(key)
    step.write_many(zip(digests, read_outputs(step.storage, step.prefix, digests, digests), strict=True))


def _tell_epochs(
    told: prometheus.Training, rows: list[tuple[int, int, list[float]]], before: int, settings: GanSettings
) -> None:
    """Tell Prometheus and the log of the epochs that follow epoch `before`."""
    from jobs.gan import training

    for number, _, means in rows:
        told.epoch(dict(zip(FIGURES, means, strict=True)))
        figures = {name: round(mean, 6) for name, mean in zip(training.METRICS, means, strict=True)}
        epoch = before + number
        logs.event(logs.EPOCHS, f"epoch {epoch} of {settings.gan_epochs}", epoch=epoch, **figures)


def _not_finite(before: int, bad: int, count: int, settings: GanSettings) -> str:
    """Return what to say of a loss that is not finite, first that of step `bad` of `count` after step `before`."""
    return (
        f"the loss is not finite, first in step {before + bad + 1} (of {before + 1} to {before + count}): "
        f"lower --gan-learning-rate (now {settings.gan_learning_rate:g}), or set --precision float32, "
        "or leave --gan-stabilizers as they are"
    )


@contextmanager
def _reporting(now: int, last: int) -> Iterator[Callable[[int, "np.ndarray"], None]]:
    """Give a function that tells of the steps just done: as a bar on a terminal, elsewhere as a line now and then."""
    import rich.console
    import rich.progress

    console = rich.console.Console(stderr=True)
    columns = ("{task.description}", rich.progress.BarColumn(), rich.progress.MofNCompleteColumn())
    said = time.monotonic()

    def report(done: int, fetched: "np.ndarray") -> None:
        nonlocal said
        progress.tell(done, last)
        generator, discriminator = fetched[:, :2].mean(axis=0)
        losses = f"loss of generator {generator:.3f}, of discriminator {discriminator:.3f}"
        bar.update(task, completed=done, description=losses)
        if not console.is_terminal and (time.monotonic() - said >= LOG_SECONDS or done == last):
            said = time.monotonic()
            log.info("step %d of %d: %s", done, last, losses)

    with rich.progress.Progress(
        *columns, rich.progress.TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("training", total=last, completed=now)
        yield report


def _losses_csv(metrics: "np.ndarray", per_epoch: int) -> bytes:
    from jobs.gan import training

    rows = training.epoch_rows(metrics, per_epoch)
    return tables.to_csv(
        ["epoch", "step", *training.METRICS],
        ([epoch, last, *(f"{mean:.6f}" for mean in means)] for epoch, last, means in rows),
    )
