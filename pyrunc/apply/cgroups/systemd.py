"""The systemd cgroup manager: a transient scope, requested over D-Bus.

Law 1: plan/cgroup_systemd.py has decided what to request. jeepney, the bus client, is an optional dependency,
imported only here, when a container uses this manager.

systemd refuses a scope without a process. But a container's first process must start in its cgroup, with its
limits set. So a placeholder process keeps the scope until settle(); it does nothing and ends with pyrunc.

Sources: org.freedesktop.systemd1(5). The rules for units that were left over are runc's (its issues 2310,
3780 and 4755).
"""

from __future__ import annotations

import _signal
import os
import sys

from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jeepney.io.blocking import DBusConnection

    from pyrunc.plan.cgroup_plan import CgroupPlan, Property

# How long systemd may take for a job; runc's value, for hosts with thousands of units.
_SECONDS = 30.0
_EXISTS = "org.freedesktop.systemd1.UnitExists"

_placeholder = 0


def start(plan: CgroupPlan) -> None:
    """Let systemd make the plan's unit.

    Raises:
        Failure: systemd does not run here, the bus cannot be reached, or systemd refuses.

    """
    unit = plan.unit
    if unit is None:
        return
    if not os.path.isdir("/run/systemd/system"):
        raise Failure("systemd not running on this host, cannot use systemd cgroups manager")
    bus = _Bus(user=unit.user)
    try:
        properties = bus.known(unit.properties)
        slice_ = unit.name.endswith(".slice")
        if not slice_:
            properties.append(("PIDs", ("au", [_hold()])))
        for attempt in range(2):
            try:
                bus.job("StartTransientUnit", "ssa(sv)a(sa(sv))", (unit.name, "replace", properties, []))
            except _RefusedError as exc:
                if exc.name == _EXISTS and slice_:
                    return
                if exc.name != _EXISTS or attempt:
                    raise Failure(f"unable to start unit {unit.name!r}: {exc}") from None
                # Perhaps a failed unit was left over.
                bus.reset(unit.name)
            else:
                return
    except BaseException:
        settle()
        raise
    finally:
        bus.close()


def _hold() -> int:
    """Start the placeholder and return its pid."""
    from pyrunc.apply import children

    global _placeholder
    parent = os.getpid()
    _placeholder, _pidfd = children.fork(lambda: _wait(parent))
    return _placeholder


def _wait(parent: int) -> None:
    """Run as the placeholder."""
    import _signal

    _linux.prctl(flags.PR_SET_PDEATHSIG, _signal.SIGKILL, 0, 0, 0)
    _linux.close_range(0, 2**32 - 1, 0)
    if os.getppid() == parent:
        _signal.pause()


def settle() -> None:
    """End the placeholder: the container's process is in the scope now, or the scope is not needed."""
    global _placeholder  # noqa: PLW0603
    if _placeholder:
        os.kill(_placeholder, _signal.SIGKILL)
        os.waitpid(_placeholder, 0)
        _placeholder = 0


def stop(paths: dict[str, str]) -> None:
    """Let systemd stop a container's unit; a missing unit or systemd is no failure."""
    settle()
    path = paths.get("", paths.get("name=systemd", ""))
    name = path.rpartition("/")[2]
    if not name.endswith((".scope", ".slice")) or not os.path.isdir("/run/systemd/system"):
        return
    try:
        bus = _Bus(user=_in_user_manager(path))
    except Failure:
        # Its cgroup can still be removed; systemd notices that.
        return
    try:
        bus.job("StopUnit", "ss", (name, "replace"))
    except _RefusedError:
        pass
    finally:
        bus.reset(name)
        bus.close()


def update(plan: CgroupPlan, properties: list[Property]) -> None:
    """Change the properties of a container's unit.

    Raises:
        Failure: systemd refuses.

    """
    path = plan.paths.get("", plan.paths.get("name=systemd", ""))
    if not properties:
        return
    bus = _Bus(user=_in_user_manager(path))
    name = path.rpartition("/")[2]
    try:
        bus.call("SetUnitProperties", "sba(sv)", (name, True, bus.known(properties)))
    except _RefusedError as exc:
        raise Failure(f"unable to set properties of unit {name!r}: {exc}") from None
    finally:
        bus.close()


def _in_user_manager(path: str) -> bool:
    return any(part.startswith("user@") and part.endswith(".service") for part in path.split("/"))


class _RefusedError(Exception):
    """An error reply: name is D-Bus's, the text is systemd's."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name


class _Bus:
    """A connection to systemd."""

    def __init__(self, *, user: bool) -> None:
        if sys.flags.no_site:
            # The command starts without site-packages (see __main__.py).
            import site

            site.main()
        try:
            from jeepney import DBusAddress
            from jeepney.io.blocking import open_dbus_connection
        except ImportError:
            raise Failure(
                "the systemd cgroup manager needs the Python package jeepney",
                hint="apt install python3-jeepney, or pip install 'pyrunc[systemd]'",
            ) from None
        self._address = DBusAddress(
            "/org/freedesktop/systemd1",
            bus_name="org.freedesktop.systemd1",
            interface="org.freedesktop.systemd1.Manager",
        )
        where = _bus_address(user=user)
        try:
            self._connection: DBusConnection = open_dbus_connection(where, auth_timeout=_SECONDS)
        except (OSError, EOFError, ValueError, RuntimeError) as exc:
            raise Failure(
                f"connect to the D-Bus at {where}: {exc}",
                hint="apt install dbus-user-session" if user else "apt install dbus",
            ) from None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def call(self, method: str, signature: str, body: tuple[object, ...]) -> Any:
        """Call a method and return the values of the reply.

        Raises:
            _RefusedError: an error reply.
            Failure: no reply.

        """
        from jeepney import MessageType, new_method_call

        message = new_method_call(self._address, method, signature, body)
        try:
            reply = self._connection.send_and_get_reply(message, timeout=_SECONDS)
        except (OSError, EOFError) as exc:
            raise Failure(f"no answer from systemd to {method}: {exc}") from None
        if reply.header.message_type == MessageType.error:
            from jeepney import HeaderFields

            text = str(reply.body[0]) if reply.body else ""
            raise _RefusedError(str(reply.header.fields.get(HeaderFields.error_name)), text)
        return reply.body

    def job(self, method: str, signature: str, body: tuple[object, ...]) -> None:
        """Call a method that starts a job, and wait for the job's end.

        Raises:
            _RefusedError: an error reply, or the job did not succeed.
            Failure: no reply, or no end.

        """
        from jeepney import MatchRule, message_bus

        rule = MatchRule(
            type="signal",
            interface="org.freedesktop.systemd1.Manager",
            member="JobRemoved",
            path="/org/freedesktop/systemd1",
        )
        with self._connection.filter(rule, bufsize=10_000) as signals:
            # Before the job starts; otherwise the end of a fast one would be missed.
            self._connection.send_and_get_reply(message_bus.AddMatch(rule), timeout=_SECONDS)
            job = self.call(method, signature, body)[0]
            while True:
                while signals:
                    _number, path, _unit, result = signals.popleft().body
                    if path == job:
                        if result != "done":
                            raise _RefusedError(str(result), f"the job ended with {result!r}")
                        return
                try:
                    self._connection.recv_messages(timeout=_SECONDS)
                except (OSError, EOFError) as exc:
                    raise Failure(f"systemd does not finish {method} of {body[0]}: {exc}") from None

    def reset(self, name: str) -> None:
        """Let systemd forget a unit if it has failed."""
        try:
            self.call("ResetFailedUnit", "s", (name,))
        except (_RefusedError, Failure):
            return

    def known(self, properties: list[Property]) -> list[tuple[str, tuple[str, object]]]:
        """Return the properties that this systemd knows, as D-Bus wants them.

        The others are set only in files.
        """
        version = self._version() if any(since for _name, _sign, _value, since in properties) else 0
        return [(name, (sign, value)) for name, sign, value, since in properties if since <= version]

    def _version(self) -> int:
        from jeepney import Properties

        reply = self._connection.send_and_get_reply(
            Properties(self._address).get("Version"), timeout=_SECONDS
        )
        text = str(reply.body[0][1]).lstrip("v")
        digits = text[: len(text) - len(text.lstrip("0123456789"))]
        return int(digits or 0)


def _bus_address(*, user: bool) -> str:
    """Return the address of the system's or the user's bus."""
    if not user:
        return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket"
    place = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return os.environ.get("DBUS_SESSION_BUS_ADDRESS") or f"unix:path={place}/bus"
