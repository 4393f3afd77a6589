"""Exceptions that end a job. The kind of error decides the exit code, and thus whether Argo retries the job."""


class UserError(Exception):
    """A user error (an invalid setting, unusable data): exit code 2; a retry would fail again."""

    exit_code = 2


class MachineError(Exception):
    """A machine failure (storage unreachable, disk full, a damaged file): exit code 3; a retry may help."""

    exit_code = 3


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
