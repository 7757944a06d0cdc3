"""Carry out the global options about logging. Law 2: imported only for unusual ones."""

from __future__ import annotations

from pyrunc import log, log_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command


def settle(command: Command) -> None:
    """Carry out the global options about logging.

    The log is opened at once, while relative paths still have the caller's meaning.

    Raises:
        Failure: the log cannot be opened.

    """
    log.debugging = command.debug or command.log_level == "debug"
    log.warnings = log.debugging or command.log_level == "warning"
    log.as_json = command.log_format == "json"
    if command.log:
        log.fd, log.service = log_records.open_log(command.log)
