"""Exceptions that end a job. The kind of error decides the exit code, and thus whether Argo retries the job."""


class _LineError(Exception):
    def __str__(self) -> str:
        return one_line(super().__str__())


class UserError(_LineError):
    """A user error (an invalid setting, unusable data): exit code 2; a retry would fail again."""

    exit_code = 2


class MachineError(_LineError):
    """A machine failure (storage unreachable, disk full, a damaged file): exit code 3; a retry may help."""

    exit_code = 3


def one_line(text: str) -> str:
    """Return `text` with escapes for line breaks and what else cannot be printed, such as a name from outside may have.

    The last line of a job, which Kubernetes shows, must not be another's.
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def first_line(error: Exception) -> str:
    """Return the first line of a library's error message, shortened for use inside another message."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


class Interrupted(BaseException):
    """SIGTERM or Ctrl-C ended the job, after a checkpoint if it was training: exit code 75; the next start resumes.

    Not an Exception, so that handlers for failures do not catch it.
    """

    exit_code = 75

    def __init__(self, message: str = "interrupted: run the same command to resume") -> None:
        super().__init__(message)
