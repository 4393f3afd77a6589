"""The command line: `mrigan JOB` reads the job's settings and runs the job. Large libraries are imported only then."""

import argparse
import ast
import contextlib
import importlib.metadata
import importlib.util
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from jobs.common import fields, leases, logs, metrics, progress, scrapes, stopping
from jobs.common.errors import Interrupted, MachineError, UserError
from jobs.common.loading import load_job, module_of
from jobs.settings import JOBS, MAIN, NAMES, PRESET_COSTS, PRESETS, ProcessSettings, RunOfTasksSettings


class Parser(argparse.ArgumentParser):
    """An argument parser with error messages of one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{message}: see --help")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit after the help is printed. Raises BrokenPipeError if the output pipe is closed."""
        sys.stdout.flush()
        super().exit(status, message)


# Jobs that report progress, shown as a bar on a terminal.
TOLD = ("phantom", "draw-phantoms", "train-gan", "generate", "pretrain", "train-classifier", "task", "images")
TERMINATION_LOG = Path("/dev/termination-log")

EXIT_CODES = (
    "exit codes: 0 success, 1 bug in mrigan, 2 user error, 3 machine failure, 75 interrupted: run the command again"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one job and return its exit code."""
    logs.setup(os.environ.get("MRIGAN_LOG_FORMAT", "").strip())
    for number in stopping.SIGNALS:
        signal.signal(number, _interrupt)
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = next((word for word in given[:1] if word in JOBS), None)
    if arguments is None:
        stopping.watch(lambda: _end(name, str(Interrupted()), Interrupted.exit_code))
    try:
        if sys.platform == "win32":
            raise UserError("Windows is not supported: use WSL2 or the container image")
        if name:
            run(name, given[1:])
        elif given and given[0] in ("-h", "--help"):
            _overview().print_help()
        elif given == ["--version"]:
            print(f"mrigan {importlib.metadata.version('mrigan')}")
        else:
            raise UserError(f"unknown job {given[0]}: see mrigan --help" if given else "name a job: see mrigan --help")
        sys.stdout.flush()
        scrapes.wait_for_a_last_scrape(failed=False)
    except (UserError, MachineError, Interrupted) as end:
        return _end(name, str(end), end.exit_code)
    except BrokenPipeError:
        # The reader closed the pipe. Without this, the interpreter's final flush would print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _end(name, f"{where}{error.strerror or error}", MachineError.exit_code)
    except MemoryError:
        return _end(name, "out of memory: use smaller batches or images", MachineError.exit_code)
    return 0


def run(name: str, arguments: Sequence[str]) -> None:
    """Run the job `name` with its command line; print the location of its outputs."""
    settings, process = _read(name, arguments)
    module = load_job(name)
    logs.setup(process.log_format)
    metrics.hold_gpus(process.gpus)
    if process.metrics_port:
        scrapes.serve(process.metrics_port)
    try:
        with logs.about(name, settings), progress.bar() if name in TOLD else contextlib.nullcontext():
            step = module.run(settings)
    finally:
        leases.release_all()
    if step is not None:
        print(f"{step.storage.url.rstrip('/')}/{step.prefix}")


def read_settings(name: str, arguments: Sequence[str]) -> Any:
    """Return the settings of a job from flags, environment, settings file and preset, in this order of precedence.

    Raises UserError for an invalid value or name.
    """
    return _read(name, arguments)[0]


def _read(name: str, arguments: Sequence[str]) -> tuple[Any, ProcessSettings]:
    """Return the job's settings and the process's."""
    kind = JOBS[name].settings
    presets = PRESETS if issubclass(kind, RunOfTasksSettings) else {}
    namespace, unknown = _parser(name, kind, presets).parse_known_args(arguments)
    words = fields.positional(kind)
    if words and not any(word.startswith("-") for word in unknown):
        # argparse accepts positional arguments in one place only; here they may also follow a flag.
        setattr(namespace, words, [*getattr(namespace, words, ()), *unknown])
        unknown = []
    if unknown:
        raise UserError(fields.unknown_flag(unknown[0], kind))
    flags = {setting: value for setting, value in vars(namespace).items() if value != []}
    for source in fields.SOURCES:
        # The environment of a pod may contain the preset of another job.
        value = os.environ.get(fields.ENVIRONMENT_PREFIX + source.upper(), "").strip()
        if value and (source != "preset" or presets):
            flags.setdefault(source, value)
    path, preset = flags.pop("settings", None), flags.pop("preset", None)
    if preset is not None and preset not in presets:
        raise UserError(f"--preset: one of {', '.join(presets) or 'none for this job'}, not {preset!r}")
    values = dict(presets[preset]) if preset else {}
    process: dict[str, Any] = {}
    for one, found in ((kind, values), (ProcessSettings, process)):
        if path:
            found |= fields.from_file(path, one, NAMES)
        found |= fields.from_environment(one, NAMES)
    process |= {setting: flags.pop(setting) for setting in ProcessSettings.model_fields if setting in flags}
    return fields.validate(kind, values | flags), fields.validate(ProcessSettings, process)


def _overview() -> argparse.ArgumentParser:
    jobs = "\n".join(f"  {name:<{max(map(len, JOBS))}}  {job.summary}" for name, job in JOBS.items())
    about = "Train classifiers of brain MRI on synthetic images."
    parser = argparse.ArgumentParser(
        prog="mrigan",
        usage="mrigan JOB [settings]",
        description=f"{about}\n\njobs (mrigan JOB --help for each):\n{jobs}",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    return parser


def _parser(name: str, kind: type[fields.Settings], presets: Mapping[str, Any]) -> argparse.ArgumentParser:
    # The docstring of the job's module, which is not imported.
    spec = importlib.util.find_spec(module_of(name))
    assert spec and spec.origin
    description = ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""
    if presets:
        lines = [f"  {preset:<6} {PRESET_COSTS[preset]}" for preset in presets]
        description += "\n\npresets:\n" + "\n".join(lines)
    words = fields.positional(kind)
    parser = Parser(
        prog=f"mrigan {name}",
        usage=f"mrigan {name} [settings]" + (f" {fields.metavar(words)}..." if words else ""),
        description=description,
        epilog="Each setting is also an environment variable (--image-size: MRIGAN_IMAGE_SIZE) and a line of the\n"
        "YAML file given with --settings (image_size: 64).\n" + EXIT_CODES,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=32, width=112),
        allow_abbrev=False,
    )
    sources = parser.add_argument_group("sources of settings")
    sources.add_argument("--settings", metavar="FILE", default=argparse.SUPPRESS, help="YAML file of settings")
    if presets:
        metavar = "{" + ",".join(presets) + "}"
        sources.add_argument("--preset", metavar=metavar, default=argparse.SUPPRESS, help="see above")
    fields.add_flags(parser, kind, MAIN if presets else ())
    fields.add_flags(parser, ProcessSettings)
    return parser


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


def _end(name: str | None, message: str, code: int) -> int:
    line = logs.redacted(f"mrigan{f' {name}' if name else ''}: {message}")
    logs.end(line, code)
    # Kubernetes shows this text as the pod's message, Argo as the node's. The file exists only in pods.
    with contextlib.suppress(OSError):
        if TERMINATION_LOG.is_file():
            TERMINATION_LOG.write_text(line + "\n")
    if code != Interrupted.exit_code:
        scrapes.wait_for_a_last_scrape(failed=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
