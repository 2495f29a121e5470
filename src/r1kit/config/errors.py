"""The one error a person can mend: its text says where, what was expected, what was found and what to do."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right. The CLI prints it without a traceback and leaves with `exit_code`."""

    exit_code = 2


class ConfigError(UserError):
    """A recipe, an override or a settings value that cannot be used."""
