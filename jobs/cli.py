"""The command line: `mrigan JOB` reads the job's settings and runs it. Nothing heavy is imported before that."""

import argparse
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple, NoReturn, cast

from jobs.common import logs, metrics
from jobs.common import settings as common
from jobs.common.errors import Interrupted, MachineError, UserError


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{message}: see --help")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Leave once the help is printed. Raises BrokenPipeError if nobody reads it."""
        sys.stdout.flush()
        super().exit(status, message)


class Job(NamedTuple):
    """Where a job lies and what `mrigan --help` says of it."""

    module: str
    settings: str
    summary: str


JOBS = {
    "pipeline": Job("jobs.pipeline", "PipelineSettings", "all jobs in the workflow's order, on this machine"),
    "plan": Job("jobs.plan", "PlanSettings", "what pipeline would do next, for an Argo workflow's pods"),
    "preprocess": Job("jobs.preprocess", "PreprocessSettings", "folders of images -> a clean, grouped, folded dataset"),
    "train-gan": Job("jobs.train_gan", "TrainGanSettings", "dataset, fold and class -> a generator"),
    "generate": Job("jobs.generate", "GenerateSettings", "generator -> synthetic images and their quality"),
    "pretrain": Job("jobs.pretrain", "PretrainSettings", "drawn heads -> the weights that classifiers start from"),
    "train-classifier": Job(
        "jobs.train_classifier", "TrainClassifierSettings", "real or synthetic images -> a classifier, judged on real"
    ),
    "evaluate": Job("jobs.evaluate", "EvaluateSettings", "all predictions of a run -> report.json and report.html"),
    "promote": Job("jobs.promote", "PromoteSettings", "a run's best classifier against the champion"),
    "predict": Job("jobs.predict", "PredictSettings", "images and the champion -> labels and probabilities"),
    "submit": Job("jobs.submit", "SubmitSettings", "the pipeline as an Argo workflow in a cluster"),
    "status": Job("jobs.status", "StatusSettings", "how workflows go, and what their pods wait for"),
    "report": Job("jobs.fetch_report", "FetchReportSettings", "fetch a run's report and open it"),
    "exporter": Job("jobs.exporter", "ExporterSettings", "what storage holds, as metrics for Prometheus"),
    "check": Job("jobs.check", "CheckSettings", "storage, data and permissions, tried in the smallest way"),
    "phantom": Job("jobs.phantom", "PhantomSettings", "a data set that needs no licence: drawn heads"),
}


class ProcessSettings(common.Settings):
    """How a job shows itself, whatever it does."""

    metrics_port: int = common.setting(
        0, "port that serves metrics to Prometheus while the job runs; 0: none", result=False, ge=0, le=65535
    )
    log_format: Literal["text", "json"] = common.setting(
        "text", "lines for people, or a JSON object a line with every epoch", result=False
    )
    gpus: int = common.setting(
        0, "GPUs that the pod holds, for the account of their hours; 0: what is found", result=False, ge=0
    )


TERMINATION_LOG = Path("/dev/termination-log")

EXIT_CODES = (
    "exit codes: 0 done, 1 a bug in mrigan, 2 your mistake, 3 the machine's failure, 75 interrupted: run it again"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one job and return its exit code."""
    logs.setup(os.environ.get("MRIGAN_LOG_FORMAT", "").strip())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = next((word for word in given[:1] if word in JOBS), None)
    try:
        if name:
            run(name, given[1:])
        elif given and given[0] in ("-h", "--help"):
            _overview().print_help()
        else:
            raise UserError(f"unknown job {given[0]}: see mrigan --help" if given else "name a job: see mrigan --help")
        sys.stdout.flush()
        metrics.wait_for_a_last_scrape(failed=False)
    except (UserError, MachineError, Interrupted) as end:
        return _end(name, str(end), end.exit_code)
    except BrokenPipeError:
        # Whoever read has enough; the interpreter would flush once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _end(name, f"{where}{error.strerror or error}", MachineError.exit_code)
    except MemoryError:
        return _end(name, "out of memory: choose smaller batches or images", MachineError.exit_code)
    return 0


def run(name: str, arguments: Sequence[str]) -> None:
    """Run the job `name` with its command line; print where its outputs lie."""
    job = JOBS[name]
    module = importlib.import_module(job.module)
    settings, process = _read(name, getattr(module, job.settings), arguments)
    logs.setup(process.log_format)
    metrics.hold_gpus(process.gpus)
    if process.metrics_port:
        metrics.serve(process.metrics_port)
    with logs.about(name, settings):
        step = module.run(settings)
    if step is not None:
        print(f"{step.storage.url.rstrip('/')}/{step.prefix}")


def read_settings(name: str, kind: type[common.Settings], arguments: Sequence[str]) -> common.Settings:
    """Return the settings of a job from flags, environment, settings file and preset, in that order of weight.

    Raises UserError for a value or a name that is wrong.
    """
    return _read(name, kind, arguments)[0]


def _read(name: str, kind: type[common.Settings], arguments: Sequence[str]) -> tuple[common.Settings, ProcessSettings]:
    """Return the job's settings and the process's."""
    presets: dict[str, dict[str, Any]] = getattr(importlib.import_module(JOBS[name].module), "PRESETS", {})
    parser = _parser(name, kind, presets)
    namespace, unknown = parser.parse_known_args(arguments)
    fields = kind.model_fields.items()
    words = next((field for field, one in fields if cast(dict, one.json_schema_extra or {}).get("positional")), None)
    if words and not any(word.startswith("-") for word in unknown):
        # argparse takes bare words from one place only, and these stand behind a flag too.
        setattr(namespace, words, [*getattr(namespace, words, ()), *unknown])
        unknown = []
    if unknown:
        raise UserError(common.unknown_flag(unknown[0], kind))
    flags = {setting: value for setting, value in vars(namespace).items() if value != []}
    environment = {f"MRIGAN_{source.upper()}": source for source in common.SOURCES}
    for variable, source in environment.items():
        # A pod's environment may name the preset of another job.
        value = os.environ.get(variable, "").strip()
        if value and (source != "preset" or presets):
            flags.setdefault(source, value)
    path, preset = flags.pop("settings", None), flags.pop("preset", None)
    if preset is not None and preset not in presets:
        raise UserError(f"--preset: one of {', '.join(presets) or 'none for this job'}, not {preset!r}")
    values = dict(presets[preset]) if preset else {}
    process: dict[str, Any] = {}
    spelled = any(variable.startswith(common.ENVIRONMENT_PREFIX) for variable in os.environ)
    known = _known_names() if path or spelled else ()
    for one, found in ((kind, values), (ProcessSettings, process)):
        if path:
            found |= common.from_file(path, one, known)
        if spelled:
            found |= common.from_environment(one, known)
    process |= {setting: flags.pop(setting) for setting in ProcessSettings.model_fields if setting in flags}
    return common.validate(kind, values | flags), common.validate(ProcessSettings, process)


def _known_names() -> tuple[str, ...]:
    """Return the names of all jobs' settings."""
    kinds = [getattr(importlib.import_module(job.module), job.settings) for job in JOBS.values()]
    return tuple(sorted({name for kind in [*kinds, ProcessSettings] for name in kind.model_fields}))


def _overview() -> argparse.ArgumentParser:
    width = max(map(len, JOBS))
    jobs = "\n".join(f"  {name:<{width}}  {job.summary}" for name, job in JOBS.items())
    return argparse.ArgumentParser(
        prog="mrigan",
        usage="mrigan JOB [settings]",
        description="Teach classifiers of brain MRI from synthetic images.\n\njobs (mrigan JOB --help for each):\n"
        + jobs,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _parser(name: str, kind: type[common.Settings], presets: dict[str, dict[str, Any]]) -> argparse.ArgumentParser:
    module = importlib.import_module(JOBS[name].module)
    costs: dict[str, str] = getattr(module, "PRESET_COSTS", {})
    lines = [f"  {preset:<6} {costs[preset]}" for preset in presets]
    description = (module.__doc__ or "").strip()
    if lines:
        description += "\n\npresets:\n" + "\n".join(lines)
    parser = Parser(
        prog=f"mrigan {name}",
        usage=f"mrigan {name} [settings]{common.positional(kind)}",
        description=description,
        epilog="Each setting is also an environment variable (--image-size: MRIGAN_IMAGE_SIZE) and a line of the\n"
        "YAML file given with --settings (image_size: 64).\n" + EXIT_CODES,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=32, width=112),
        allow_abbrev=False,
    )
    common.add_flags(parser, kind)
    common.add_flags(parser, ProcessSettings)
    parser.add_argument("--settings", metavar="FILE", default=argparse.SUPPRESS, help="YAML file of settings")
    if presets:
        parser.add_argument(
            "--preset", metavar="{" + ",".join(presets) + "}", default=argparse.SUPPRESS, help="see above"
        )
    return parser


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


def _end(name: str | None, message: str, code: int) -> int:
    line = logs.redacted(f"mrigan{f' {name}' if name else ''}: {message}")
    logs.end(line, code)
    # Kubernetes shows what stands here as the pod's message, and Argo as the node's. There is no such file elsewhere.
    with contextlib.suppress(OSError):
        if TERMINATION_LOG.is_file():
            TERMINATION_LOG.write_text(line + "\n")
    if code != Interrupted.exit_code:
        metrics.wait_for_a_last_scrape(failed=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
