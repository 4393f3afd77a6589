"""Every setting of every job, one a line. A new setting is written here once: the flags, the environment variables, the
settings file, the parameters of the workflow and docs/settings.md follow.

A group is a class; the settings of a job are groups, and what only this job has. `result=False` marks a setting that
does not change results. Any other new setting gives runs a new name, so their results are computed again. Nothing heavy
is imported.
"""

from typing import Annotated, Any, Literal, NamedTuple

import pydantic

from jobs.common.fields import NAME, Settings, Several, setting
from jobs.gan import IMAGE_SIZES

Network = Literal["mobilenetv2", "resnet152v2"]
Regime = Literal["synthetic", "real", "real+synthetic"]
Control = Literal["none", "permuted", "leaky"]
CONTROLS: tuple[Control, ...] = ("permuted", "leaky")  # what --controls trains
Fold = int | Literal["all"]
SIDE = f"side of the square images: {', '.join(map(str, IMAGE_SIZES))}; with --regimes real, which needs no GAN, any from 32 to 256"
EMPTY_OR_NAME = f"^$|{NAME}"
PLAIN_LEARNING_RATE = 2e-4  # of the plain DCGAN: Radford et al., ICLR 2016, https://arxiv.org/abs/1511.06434

# What most people set: the first group of --help, and parameters of the workflow by their own names.
MAIN = ("data", "storage", "name", "groups", "image_size", "folds", "networks", "regimes", "seeds", "healthy")

# fmt: off
# ---- groups ----------------------------------------------------------------------------------------------------------


class StorageSettings(Settings):
    """storage"""

    storage: str = setting("out", "folder or s3://bucket/prefix for all outputs", result=False, min_length=1)


class SeedSettings(Settings):
    """randomness"""

    seed: int = setting(0, "seed of all randomness", ge=0)


class ImageSizeSettings(Settings):
    """images"""

    image_size: int = setting(64, SIDE, unit="pixels", ge=32, le=256)


class ReadingSettings(Settings):
    """image files"""

    volume: int = setting(0, "volume to read of a NIfTI file with a fourth dimension, counted from 0", ge=0)
    slice_step: int = setting(1, "of a volume, use every n-th slice with a head", unit="slices", ge=1)


class LinkSettings(Settings):
    """links"""

    follow_links: bool = setting(False, "also read what links in a folder of images lead to outside of this folder", result=False)


class DatasetSettings(LinkSettings):
    """dataset"""

    data: str = setting(..., "folder or s3://bucket/prefix with one folder of images per class", result=False, min_length=1)
    groups: str = setting("", "CSV file without header: each line lists the files of one person, as paths below the data", result=False)
    header_ids: Annotated[tuple[Literal["patient", "study"], ...], Several] = setting(("patient", "study"), "DICOM identifiers that put images into one group; none: use neither")
    folds: int = setting(5, "number of folds; each is held out once", ge=2, le=100)


class ExecutionSettings(Settings):
    """arithmetic"""

    threads: int = setting(1, "processor threads of a task; changing this changes results slightly; 0: all cores", ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = setting("auto", "number format of the networks' arithmetic")
    xla: Literal["auto", "on", "off"] = setting("auto", "compile training steps with XLA")


class CheckpointSettings(Settings):
    """checkpoints"""

    checkpoint_steps: int = setting(1000, "most steps between two checkpoints", unit="steps", ge=1, result=False)
    checkpoint_seconds: float = setting(300, "most time between two checkpoints", unit="s", gt=0, result=False)
    other_arithmetic: Literal["continue", "restart"] = setting("continue", "what to do with outputs and checkpoints for which auto or 0 meant something else, or the device was another kind", result=False)


class GanSettings(Settings):
    """GAN"""

    gan_epochs: int = setting(400, "passes over the training images; use fewer for thousands of images", unit="epochs", ge=1)
    gan_width: int = setting(16, "channels of the outermost feature maps; inner feature maps have up to 8 times as many", ge=1)
    gan_stabilizers: Literal["all", "none"] = setting("all", "methods that keep training stable with few images; none: the plain DCGAN")
    gan_batch: int = setting(32, "images in a batch", unit="images", ge=2)
    gan_learning_rate: float = setting(1e-3, "learning rate of generator and discriminator (Adam); plain DCGAN: 0.0002 unless given", gt=0)
    latent: int = setting(64, "length of the latent vectors", ge=1)
    sample_every: int = setting(200, "interval of the sample grids", unit="epochs", ge=1)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _plain_learning_rate(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Before validation, so that the rate stands in every copy of the settings and in the manifest.
        return {"gan_learning_rate": PLAIN_LEARNING_RATE} | values if values.get("gan_stabilizers") == "none" else values


class SyntheticSettings(Settings):
    """synthetic images"""

    synthetic_count: int = setting(2000, "synthetic images of each class", unit="images", ge=1)
    synthetic_bend: float = setting(0.025, "standard deviation of a smooth random displacement of synthetic images", unit="share of the side", ge=0, le=0.1)
    feature_weights: str = setting("", "Keras .h5 file (path or s3://) of InceptionV3 without its top, for KID and FID; empty: five random networks", result=False)


class PhantomLearningSettings(Settings):
    """phantoms (drawn heads)"""

    phantoms: int = setting(8000, "phantoms that classifiers learn from, half of them with a lesion; used with --healthy", unit="images", ge=2)
    phantom_epochs: int = setting(96, "epochs on phantoms alone before the first image; used with --healthy", unit="epochs", ge=0)


class BatchSettings(Settings):
    """classifier batches"""

    classifier_steps_per_epoch: int = setting(100, "batches in an epoch, in every regime", unit="steps", ge=1)
    classifier_batch: int = setting(32, "images in a batch", unit="images", ge=2)


class ClassifierSettings(PhantomLearningSettings, BatchSettings):
    """classifiers"""

    healthy: str = setting("auto", "class without lesions, for phantoms; auto: the class called no, normal, healthy or similar; off: no phantoms")
    classifier_epochs: int = setting(0, "epochs of a classifier; 0: 8 after pretraining on phantoms, otherwise 12", unit="epochs", ge=0)
    classifier_learning_rate: float = setting(0.0, "peak learning rate of AdamW; 0: 0.001 with phantoms, otherwise 0.003", ge=0)
    classifier_weights: str = setting("none", "initial weights: none (random), imagenet (downloaded), or a Keras .h5 file (path or s3://) of the network without its top")
    classifier_augmentation: bool = setting(True, "augment the training images: rotation, scale, shear, shift, mirror, exposure, erasing, mixup")


class EvaluationSettings(Settings):
    """evaluation"""

    networks: Annotated[tuple[Network, ...], Several] = setting(("mobilenetv2",), "networks to train and compare", min_length=1)
    regimes: Annotated[tuple[Regime, ...], Several] = setting(("synthetic", "real", "real+synthetic"), "kinds of training images", min_length=1)
    seeds: int = setting(1, "classifiers of each kind, with the seeds seed, seed + 1, ...", ge=1)
    controls: bool = setting(False, "also train two classifiers that must fail (permuted labels) or look too good (leaky folds)")
    resamples: int = setting(2000, "bootstrap resamples of an interval", ge=100)


class PromotionSettings(Settings):
    """promotion"""

    promote_margin: float = setting(0.02, "balanced accuracy up to which losses of promoted challengers may add up", ge=0, le=1)
    test: str = setting("", "folder of class folders to judge on, instead of the held-out folds", result=False)


# ---- what a task of a run is about -----------------------------------------------------------------------------------


class RunSettings(Settings):
    """place in storage"""

    dataset: str = setting(..., "id of the dataset; preprocess prints it", result=False, pattern=NAME)
    run: str = setting(..., "name of the run", result=False, pattern=NAME)


class FoldSettings(RunSettings):
    """place in storage"""

    fold: Fold = setting(..., "fold that is held out; all: none is")


# ---- jobs ------------------------------------------------------------------------------------------------------------


class PreprocessSettings(DatasetSettings, ImageSizeSettings, ReadingSettings, SeedSettings, StorageSettings):
    """Settings of preprocess."""


class TrainGanSettings(FoldSettings, GanSettings, SeedSettings, StorageSettings, ExecutionSettings, CheckpointSettings):
    """Settings of train-gan."""

    label: str = setting("", "class to draw; empty: all classes, with one class-conditional GAN")


class GenerateSettings(FoldSettings, SyntheticSettings, SeedSettings, StorageSettings, ExecutionSettings):
    """Settings of generate."""

    label: str = setting(..., "class to draw")


class PretrainSettings(
    PhantomLearningSettings, BatchSettings, ImageSizeSettings, StorageSettings, ExecutionSettings, CheckpointSettings
):
    """Settings of pretrain."""

    network: Network = setting("mobilenetv2", "network of keras.applications")


class TrainClassifierSettings(
    FoldSettings, ClassifierSettings, SeedSettings, StorageSettings, ExecutionSettings, CheckpointSettings
):
    """Settings of train-classifier."""

    network: Network = setting("mobilenetv2", "network of keras.applications")
    regime: Regime = setting("real", "kind of training images; real+synthetic: synthetic in the first third of the steps, then real")
    control: Control = setting("none", "train on permuted labels, or on leaky folds that ignore groups; regime real only")


class EvaluateSettings(RunSettings, EvaluationSettings, SeedSettings, StorageSettings):
    """Settings of evaluate."""

    name: str = setting("", "name of the dataset, for the title of the report")
    report_folder: str = setting("", "folder on this machine that gets a copy of the report", result=False)


class PromoteSettings(RunSettings, PromotionSettings, LinkSettings, ReadingSettings, SeedSettings, StorageSettings, ExecutionSettings):
    """Settings of promote."""

    name: str = setting(..., "name of the dataset: the record is champions/NAME.json", result=False, pattern=NAME)


class DrawPhantomsSettings(ImageSizeSettings, StorageSettings):
    """Settings of draw-phantoms."""

    phantoms: int = setting(8000, "phantoms, half of them with a lesion", unit="images", ge=2)
    part: Annotated[int, pydantic.Field(ge=0)] | Literal["all"] = setting("all", "which thousand of the phantoms to draw, counted from 0", result=False)


class RunOfTasksSettings(
    DatasetSettings,
    ImageSizeSettings,
    ReadingSettings,
    EvaluationSettings,
    ClassifierSettings,
    GanSettings,
    SyntheticSettings,
    PromotionSettings,
    SeedSettings,
    StorageSettings,
    ExecutionSettings,
    CheckpointSettings,
):
    """a run"""

    gan_conditional: bool = setting(True, "train one class-conditional GAN for all classes, not one GAN for each class")
    gan_of_all: bool = setting(False, "also train a GAN on all images, for mrigan images", result=False)
    name: str = setting("", "name of the dataset, under which its champion is kept; empty: the name of its folder", result=False, pattern=EMPTY_OR_NAME)


class PipelineSettings(RunOfTasksSettings):
    """Settings of pipeline: those of its jobs."""

    workers: int = setting(0, "tasks at the same time, each in a process of its own; 0: the processor cores, or the GPUs", result=False, ge=0)


class PlanSettings(RunOfTasksSettings):
    """Settings of plan: those of pipeline."""

    plan_folder: str = setting("", "folder on this machine that gets the plan as files, for a workflow", result=False)
    gpus_of_each: int = setting(0, "GPUs that each pod that trains will request, checked here before the first one", result=False, ge=0)


class TaskSettings(StorageSettings):
    """Settings of task."""

    plan: str = setting(..., "id of the plan; mrigan plan prints it", result=False, pattern=NAME)
    task: str = setting(..., "task of the plan, such as train-gan(0:yes)", result=False, min_length=1)
    report_folder: str = setting("", "folder on this machine that gets a copy of the report", result=False)


class PredictSettings(ReadingSettings, StorageSettings, ExecutionSettings):
    """Settings of predict."""

    images: Annotated[tuple[str, ...], Several] = setting(..., "image files", positional=True, result=False)
    name: str = setting("", "name of the dataset of the champion; empty: the only champion in storage", result=False)
    format: Literal["text", "csv", "json"] = setting("text", "format of the output; csv and json have the probability of every class, and a finding for each unreadable file", result=False)


class ImagesSettings(StorageSettings):
    """Settings of images."""

    runs: tuple[str, ...] = setting(..., "run whose synthetic images, or dataset whose images to write", result=False, positional=True)
    out: str = setting("", "folder on this machine to write to, with one folder for each class; empty: `synthetic`, or `dataset` for a dataset", result=False)
    label: str = setting("", "classes, separated by commas; empty: all", result=False)
    count: int = setting(0, "synthetic images of each class; more than are stored are drawn; 0: those that are stored", unit="images", result=False, ge=0)
    ids: str = setting("", "only these stored images, separated by commas: numbers of synthetic images, or ids in a dataset; empty: all", result=False)


class CheckSettings(LinkSettings, StorageSettings):
    """Settings of check."""

    data: str = setting("", "folder or s3://bucket/prefix with class folders to look into; empty: none", result=False)


class ExporterSettings(StorageSettings):
    """Settings of exporter."""

    exporter_port: int = setting(9090, "port that serves the metrics", result=False, ge=1, le=65535)
    refresh_seconds: int = setting(60, "age of the figures from which a scrape reads storage again", unit="s", result=False, ge=1)


class PhantomSettings(SeedSettings):
    """Settings of phantom."""

    out: str = setting("phantom", "folder or s3://bucket/prefix to write to; empty or with an earlier output", result=False)
    count: int = setting(40, "drawn heads of each class", unit="images", ge=2, le=100_000)
    classes: int = setting(2, "number of classes: healthy, and one to five kinds of lesion", ge=2, le=6)


class NamespaceSettings(Settings):
    """cluster"""

    namespace: str = setting("", "namespace; empty: ARGO_NAMESPACE, or the namespace of the kubeconfig's context", result=False)


class SubmitSettings(NamespaceSettings):
    """Settings of submit."""

    parameters: tuple[str, ...] = setting((), "parameters of the workflow, such as image-size=64", result=False, positional=True)
    template: str = setting("mrigan", "WorkflowTemplate to submit", result=False, min_length=1)
    watch: bool = setting(True, "wait until the workflow has ended, and end with its result", result=False)


class StatusSettings(NamespaceSettings):
    """Settings of status."""

    workflows: tuple[str, ...] = setting((), "workflow to show; none: list all workflows", result=False, positional=True)


class FetchReportSettings(StorageSettings, NamespaceSettings):
    """Settings of report."""

    runs: tuple[str, ...] = setting(..., "run or workflow", result=False, positional=True)
    report_folder: str = setting("report-RUN", "folder to write to", result=False, min_length=1)
    open: bool = setting(True, "open the report in a browser, on a terminal", result=False)


class ProcessSettings(Settings):
    """process"""

    metrics_port: int = setting(0, "port that serves metrics to Prometheus while the job runs; 0: none", result=False, ge=0, le=65535)
    log_format: Literal["text", "json"] = setting("text", "text for people, or a JSON object a line with every epoch", result=False)
    gpus: int = setting(0, "GPUs that the pod holds, for the count of GPU hours; 0: those that are found", result=False, ge=0)
# fmt: on


# ---- recipes: settings that go together ------------------------------------------------------------------------------

# The defaults are the recipe: 64 px, 5 folds, MobileNetV2; 250 MB of storage for 250 images.
PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "image_size": 32,
        "folds": 2,
        "gan_epochs": 60,
        "sample_every": 20,
        "synthetic_count": 128,
        "healthy": "off",
        "classifier_epochs": 6,
        "classifier_steps_per_epoch": 40,
    },
    "quick": {
        "folds": 2,
        "gan_epochs": 200,
        "sample_every": 100,
        "synthetic_count": 500,
    },
    "full": {
        "image_size": 128,
        "networks": ("mobilenetv2", "resnet152v2"),
        "seeds": 3,
        "controls": True,
        "gan_width": 64,
        "gan_epochs": 800,
        "classifier_epochs": 50,
    },
}
PRESET_COSTS = {
    "demo": "32 px, 2 folds, MobileNetV2, no phantoms: two minutes on 2 cores and 58 MB of storage for 200 drawn heads",
    "quick": "64 px, 2 folds, MobileNetV2: 11 minutes on 2 cores (Xeon, AMX) and 100 MB of storage for 250 images",
    "full": "128 px, 5 folds, both networks, 3 seeds, controls: for a GPU, and 12 GB of storage; time not measured",
}

# ---- the jobs --------------------------------------------------------------------------------------------------------


class Job(NamedTuple):
    """The settings of a job, and one line about it for `mrigan --help`. The job is jobs/<name>.py."""

    settings: type[Settings]
    summary: str


JOBS: dict[str, Job] = {
    "pipeline": Job(PipelineSettings, "all jobs in order, on this machine"),
    "plan": Job(PlanSettings, "the tasks of pipeline: how many, how many are done, how long the others take"),
    "task": Job(TaskSettings, "one task of a plan, for the pods of an Argo workflow"),
    "preprocess": Job(PreprocessSettings, "folders of images -> a clean dataset with groups and folds"),
    "train-gan": Job(TrainGanSettings, "dataset, fold and class -> a generator"),
    "generate": Job(GenerateSettings, "generator -> synthetic images and their quality"),
    "draw-phantoms": Job(DrawPhantomsSettings, "drawn heads with and without a lesion, for pretrain"),
    "pretrain": Job(PretrainSettings, "phantoms -> initial weights of classifiers"),
    "train-classifier": Job(TrainClassifierSettings, "real or synthetic images -> a classifier and its predictions"),
    "images": Job(ImagesSettings, "run or dataset -> a folder of its images; of synthetic ones, as many as wanted"),
    "evaluate": Job(EvaluateSettings, "all predictions of a run -> report.json and report.html"),
    "promote": Job(PromoteSettings, "report and champion -> the champion stays or changes"),
    "predict": Job(PredictSettings, "images and champion -> labels and probabilities"),
    "submit": Job(SubmitSettings, "run the pipeline as an Argo workflow in a cluster"),
    "status": Job(StatusSettings, "show workflows and what their pods wait for"),
    "report": Job(FetchReportSettings, "fetch the report of a run and open it"),
    "exporter": Job(ExporterSettings, "serve metrics of what storage holds to Prometheus"),
    "check": Job(CheckSettings, "try storage, data and permissions"),
    "phantom": Job(PhantomSettings, "write a data set of drawn heads, free of any licence"),
}

# Of all jobs: an environment variable or a line of a settings file may be for another job.
NAMES = sorted(set(ProcessSettings.model_fields).union(*(job.settings.model_fields for job in JOBS.values())))
