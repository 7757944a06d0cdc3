"""What the global options say about logging, carried out. Law 2: only for more than engines say."""

from __future__ import annotations

from pyrunc import log, log_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command


def settle(command: Command) -> None:
    """Do what the global options say about logging, from here on.

    The log is opened at once, while relative paths still mean what the caller meant.

    Raises:
        Failure: the log cannot be opened.

    """
    log.debugging = command.debug or command.log_level == "debug"
    log.warnings = log.debugging or command.log_level == "warning"
    log.as_json = command.log_format == "json"
    if command.log:
        log.fd, log.service = log_records.open_log(command.log)
