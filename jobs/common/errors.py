"""How a job ends when it cannot finish: whose fault it was decides the exit code, and so whether a retry can help."""


class UserError(Exception):
    """The caller's mistake (a wrong setting, unusable data): exit code 2, a retry would fail alike."""

    exit_code = 2


class MachineError(Exception):
    """The machine's failure (storage unreachable, disk full, a damaged file): exit code 3, a retry may help."""

    exit_code = 3


def first_line(error: Exception) -> str:
    """Return the first line of what a library says, short enough to stand inside a message."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


class Interrupted(BaseException):
    """SIGTERM or Ctrl-C ended the job after it wrote what it had: exit code 75, the next start goes on.

    Not an Exception, so that no handler meant for failures swallows it.
    """

    exit_code = 75

    def __init__(self, message: str = "interrupted: the same command goes on from where it stopped") -> None:
        super().__init__(message)
