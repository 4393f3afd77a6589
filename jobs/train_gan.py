"""Train a generator (DCGAN) of one class on the training images of a fold.

Reads   datasets/<id>/.
Writes  runs/<run>/fold-<fold>/<label>/gan/: generator.safetensors, losses.csv, samples/epoch-<n>.png, manifest.json;
        checkpoints/ while it trains.

A generator that another run trained on the same images with the same GAN settings is copied.

An interrupted job (SIGTERM, Ctrl-C, kill) resumes when it is started again. The results are identical, byte for byte,
to those without an interruption.
"""

import json
import logging
import time
from collections.abc import Sequence, Set

import numpy as np
import tensorflow as tf

from jobs.common import hardware, keys, metrics, progress
from jobs.common.checkpoint import Checkpoints
from jobs.common.errors import UserError
from jobs.common.step import Step, read_outputs
from jobs.common.storage import open_storage
from jobs.gan import grid, history, networks, training
from jobs.mri.dataset import Dataset, open_dataset
from jobs.settings import TrainGanSettings

log = logging.getLogger("mrigan.train-gan")

STABILIZERS = ("augmentation", "gradient_penalty", "moving_average", "patches", "reconstruction", "relativistic")
GRID_SIDE = 8  # samples per row and column of a grid
FETCH_STEPS = 64  # steps between fetches of the losses from the device
LOG_SECONDS = 60


def run(settings: TrainGanSettings, off: Sequence[str] = ()) -> Step:
    """Train the GAN unless that is done; return its step, whose facts contain the training time.

    `off` are STABILIZERS to disable, for ablations.

    Raises UserError for a class, fold or image size that cannot be trained and for a loss that is not finite,
    Interrupted after a signal and a checkpoint.
    """
    storage = open_storage(settings.storage)
    dataset = open_dataset(storage, settings.dataset)
    labels = _labels(settings, dataset)
    place = settings.label or keys.CLASS_CONDITIONAL
    hw = hardware.configure(settings)
    step = Step(
        storage,
        keys.gan(settings.run, settings.fold, place),
        job="train-gan",
        settings=settings.result() | {"label": place} | ({"off": sorted(off)} if off else {}),
        inputs={"dataset": dataset.digest},
        arithmetic=hw.arithmetic(),
        restart=settings.other_arithmetic == "restart",
        shared=True,
    )
    if step.finished():
        log.info("fold %s, %s: the generator exists: nothing to do", settings.fold, place)
        return step
    rows = [row for row in dataset.training(settings.fold) if row.label in labels]
    if not rows:
        raise UserError(f"fold {settings.fold} has no training image of {place}: prepare the dataset with fewer folds")
    if not step.take():
        return step
    on = set(STABILIZERS) - set(off) if settings.gan_stabilizers == "all" else set()
    _train(settings, step, dataset.pixels(rows), [labels.index(row.label) for row in rows], labels, on, hw)
    return step


def _labels(settings: TrainGanSettings, dataset: Dataset) -> tuple[str, ...]:
    """Return the classes to draw."""
    if settings.label in ("", keys.CLASS_CONDITIONAL):
        return dataset.labels
    if settings.label not in dataset.labels:
        raise UserError(f"--label: one of {', '.join(dataset.labels)}, not {settings.label!r}")
    return (settings.label,)


def _train(
    settings: TrainGanSettings,
    step: Step,
    pixels: np.ndarray,
    classes: list[int],
    labels: tuple[str, ...],
    on: Set[str],
    hw: hardware.Hardware,
) -> None:
    """Train on uint8 [n, size, size] of the class indices `classes`, write all outputs and finish `step`."""
    # ---- networks -------------------------------------------------------------------------------------------------
    count = len(pixels)
    per_epoch = training.steps_per_epoch(count, settings.gan_batch)
    last = settings.gan_epochs * per_epoch
    anchors = count if "reconstruction" in on else 0
    config = networks.GanConfig(pixels.shape[1], settings.gan_width, settings.latent, labels, anchors)
    options = training.Options(
        seed=settings.seed,
        steps=last,
        batch=settings.gan_batch,
        learning_rate=settings.gan_learning_rate,
        precision=hw.precision,
        xla=hw.xla,
        **{name: name in on for name in STABILIZERS if name != "reconstruction"},
    )
    images, indices = pixels[..., None], np.array(classes, np.int32)
    state = training.new_state(config, options, indices)
    train_steps = training.train_function(state, config, options)

    # The epochs after which samples are drawn, by their last step.
    epochs = {*range(settings.sample_every, settings.gan_epochs, settings.sample_every), settings.gan_epochs}
    samples = {epoch * per_epoch: epoch for epoch in epochs}
    latents, sample_labels = training.fixed_latents(config, options.seed, GRID_SIDE**2)

    # ---- the checkpoint of an interrupted training ----------------------------------------------------------------
    checkpoints = Checkpoints(step, settings.checkpoint_steps, settings.checkpoint_seconds)
    now, losses, seconds_before = 0, np.zeros((0, len(history.LOSS_COLUMNS)), np.float32), 0.0
    kept: dict[str, str] = {}
    restored = checkpoints.restore()
    if restored:
        arrays, meta = restored
        state.load(arrays)
        losses, seconds_before = arrays["metrics"], float(meta["seconds"])
        kept = json.loads(meta["samples"])
        now = len(losses)
        log.info("resuming after step %d of %d", now, last)
    _keep_samples(step, kept)

    # ---- training -------------------------------------------------------------------------------------------------
    what = f"fold {settings.fold}, {', '.join(labels)}"
    log.info("%s: training a DCGAN on %d images, %d epochs of %d steps", what, count, settings.gan_epochs, per_epoch)
    told = metrics.Training("gan", history.FIGURES, settings.gan_epochs, now // per_epoch, now)
    first, started, warm = now, time.monotonic(), 0.0
    pending: list[tf.Tensor] = []
    said = started
    with checkpoints:
        while now < last:
            stop = min(now + training.steps_per_call(config.image_size), last, *(at for at in samples if at > now))
            chosen = training.batches(options.seed, count, options.batch, now, stop)
            with metrics.gpu_use():
                at = tf.constant(now, tf.int64)
                pending.append(train_steps(images[chosen], indices[chosen], np.int32(chosen), at))
            now = stop

            sampled, due = now in samples, checkpoints.due(now)
            if now - len(losses) < FETCH_STEPS and not sampled and not due:
                continue
            with metrics.gpu_use():
                fetched = tf.concat(pending, 0).numpy()
            pending.clear()
            bad = history.first_not_finite(fetched)
            whole, before = len(losses) // per_epoch, len(losses)
            losses = np.concatenate([losses, fetched[:bad]])
            history.tell_epochs(told, losses, per_epoch, whole, settings.gan_epochs)
            if bad is not None:
                # The losses of all whole epochs before the failure.
                step.write("losses.csv", history.losses_csv(losses, per_epoch))
                told.epoch(fetched[bad].tolist())
                raise UserError(_not_finite(before, bad, len(fetched), settings))
            told.steps(now, now // per_epoch, len(fetched) * options.batch)
            text = "generator loss {:.3f}, discriminator loss {:.3f}".format(*fetched[:, :2].mean(axis=0))
            progress.tell(now, last, text)
            if not progress.is_shown() and (time.monotonic() - said >= LOG_SECONDS or now == last):
                said = time.monotonic()
                log.info("step %d of %d: %s", now, last, text)
            if not warm:
                warm, first = time.monotonic(), now
            if sampled:
                training.settle(state.average, config, options.seed)
                drawn = networks.to_uint8(networks.sample(state.average, latents, sample_labels))
                step.write(f"samples/epoch-{samples[now]:06d}.png", grid.grid_png(drawn[..., 0], GRID_SIDE))
                # The file is overwritten at the end; until then it shows the progress of the training.
                step.write("losses.csv", history.losses_csv(losses, per_epoch))
            if due:
                seconds = seconds_before + time.monotonic() - started
                own = {name: found for name, found in step.written.items() if name.startswith("samples/")}
                meta = {"seconds": f"{seconds:.1f}", "samples": json.dumps(own)}
                checkpoints.save(now, state.arrays() | {"metrics": losses}, meta)

    # ---- outputs --------------------------------------------------------------------------------------------------
    ended = time.monotonic()
    per_step = (ended - warm) / (now - first) if now > first else None
    step.write("losses.csv", history.losses_csv(losses, per_epoch))
    step.write(networks.GENERATOR, networks.save_generator(state.average, config))
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


def _keep_samples(step: Step, digests: dict[str, str]) -> None:
    """Keep the samples of the interrupted training, and delete all others."""
    for key in step.storage.list(f"{step.prefix}/samples"):
        if key.removeprefix(f"{step.prefix}/") not in digests:
            step.storage.delete(key)
    step.write_many(zip(digests, read_outputs(step.storage, step.prefix, digests, digests), strict=True))


def _not_finite(before: int, bad: int, count: int, settings: TrainGanSettings) -> str:
    """Return the message for a loss that is not finite, first in step `bad` of `count` after step `before`."""
    return (
        f"the loss is not finite, first in step {before + bad + 1} (of {before + 1} to {before + count}): "
        f"lower --gan-learning-rate (now {settings.gan_learning_rate:g}), or set --precision float32, "
        "or use the default --gan-stabilizers"
    )
