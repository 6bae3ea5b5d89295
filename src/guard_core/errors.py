"""Errors a person can act on.

One root, few leaves. Every message is one sentence that names the file, row or
field and says the remedy; the command line prints it without a traceback and
exits with the leaf's ``exit_code`` (docs: "Exit codes"). All leaves survive
pickling, because Ray carries them between processes.
"""

from __future__ import annotations

from typing import ClassVar


class GuardError(Exception):
    """Root of every error TrainGuard raises on purpose."""

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class UserError(GuardError):
    """The user can fix this: usage, configuration or a bad file. Exit code 2."""

    exit_code = 2


class MissingExtra(UserError):
    """An optional dependency is absent; the message holds the exact install line."""

    def __init__(self, message: str) -> None:
        super().__init__(message)

    @classmethod
    def of(cls, package: str, extra: str) -> MissingExtra:
        """Error for ``package``, which ``pip install "trainguard[extra]"`` brings."""
        return cls(f'{package} is not installed; run: pip install "trainguard[{extra}]"')


class Denied(GuardError):
    """Policy said no. ``decision_id`` finds the whole story in the audit log. Exit code 1."""

    exit_code = 1

    def __init__(self, message: str, decision_id: str = "") -> None:
        super().__init__(message)
        self.decision_id = decision_id

    def __reduce__(self) -> tuple[type[Denied], tuple[str, str]]:
        return (type(self), (self.message, self.decision_id))


class Tampered(GuardError):
    """Data, a record or a log differs from what was signed or chained. Exit code 1."""

    exit_code = 1


class Undecidable(GuardError):
    """No decision could be had: policy engine down, storage unreachable. Exit code 3.

    Callers must treat it as a denial (fail closed).
    """

    exit_code = 3
