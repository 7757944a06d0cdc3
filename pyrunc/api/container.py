"""Container: one container from create to delete, for programs.

Law 4: an object holds only the id and the process that this program has started; everything else is looked up
each time.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

from pyrunc import jsonio, store
from pyrunc.api import worker
from pyrunc.api.bundle import Bundle
from pyrunc.api.options import CreateOptions, CriuOptions, ExecOptions, RestoreOptions, command
from pyrunc.api.process import Process, Streams, captured, finish
from pyrunc.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self, TypeAlias, Unpack

    from pyrunc.api.process import Given

    Path: TypeAlias = str | os.PathLike[str]
    Completed: TypeAlias = subprocess.CompletedProcess[Any]


class Container:
    """A container.

    As a context manager it deletes the container at the end, running or not.

    Attributes:
        id: its id.
        root: the state root.
        init: its first process, if this object made it; otherwise None.

    """

    def __init__(self, id: str, *, root: Path | None = None) -> None:  # noqa: A002 - the specification's name
        """Find a container that exists.

        Args:
            id: its id.
            root: the state root, as for `--root`.

        Raises:
            Failure: there is none ("container does not exist").

        """
        self.id = id
        self.root = state_root(root)
        self.init: Process | None = None
        self._record()

    @classmethod
    def create(
        cls,
        bundle: Bundle | Path,
        id: str | None = None,  # noqa: A002
        *,
        root: Path | None = None,
        stdin: Given = None,
        stdout: Given = None,
        stderr: Given = None,
        pass_fds: Sequence[int] = (),
        **options: Unpack[CreateOptions],
    ) -> Self:
        """Make a container; its program waits for start().

        Args:
            bundle: a Bundle, or the directory of one.
            id: the container's id; None for a random one.
            root: the state root.
            stdin: the program's standard input: None for the caller's own, a descriptor, a file, or
                subprocess.PIPE or DEVNULL.
            stdout: the same.
            stderr: the same, or subprocess.STDOUT.
            pass_fds: descriptors that the program gets as 3, 4 and so on.
            options: those of `pyrunc create`.

        Raises:
            Failure: it cannot be made; nothing of it is left.

        """
        bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        name = id or "c-" + os.urandom(6).hex()
        directory = state_root(root)
        words = {"id": name, "root": directory, **_place(bundle)}
        asked = command("create", options, **words)
        store.check_id(name)
        taken = os.path.exists(f"{directory}/{name}")
        streams = Streams(stdin, stdout, stderr)
        try:
            channel = worker.call(asked, streams.theirs, pass_fds)
            streams.handed_over()
        except BaseException as exc:
            streams.close()
            if not isinstance(exc, Failure) and not taken:
                _quietly_delete(directory, name)
            raise
        return cls._made(name, directory, channel, streams)

    @classmethod
    def restore(
        cls,
        bundle: Bundle | Path,
        images: Path,
        id: str | None = None,  # noqa: A002
        *,
        root: Path | None = None,
        stdin: Given = None,
        stdout: Given = None,
        stderr: Given = None,
        **options: Unpack[RestoreOptions],
    ) -> Self:
        """Restore a container from the image files that checkpoint() wrote.

        Args:
            bundle: its bundle.
            images: the directory of the image files.
            id: the new container's id.
            root: the state root.
            stdin: what takes the place of its standard input, if that was a pipe.
            stdout: the same.
            stderr: the same.
            options: those of `pyrunc restore`.

        Raises:
            Failure: it cannot be restored.

        """
        bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        name = id or "c-" + os.urandom(6).hex()
        directory = state_root(root)
        words = {"id": name, "root": directory, "image_path": os.path.abspath(images), "detach": True}
        asked = command("restore", options, **words, **_place(bundle))
        streams = Streams(stdin, stdout, stderr)
        try:
            channel = worker.call(asked, streams.theirs)
            streams.handed_over()
        except BaseException:
            streams.close()
            raise
        return cls._made(name, directory, channel, streams)

    @classmethod
    def _made(cls, name: str, root: str, channel: worker.Channel, streams: Streams) -> Self:
        made = cls(name, root=root)
        made.init = Process(
            made.config["process"]["args"] if "process" in made.config else (), channel, streams
        )
        return made

    # -- what it is ------------------------------------------------------------------------------------------

    def _record(self) -> store.Container:
        return store.open_container(self.root, self.id)

    @property
    def state(self) -> dict[str, Any]:
        """What `pyrunc state` prints: ociVersion, id, status, pid, bundle, rootfs, created, annotations."""
        return store.describe(self._record())

    @property
    def status(self) -> str:
        """Its status now: "creating", "created", "running", "paused" or "stopped"."""
        return store.status(self._record())

    @property
    def pid(self) -> int:
        """The pid of its first process on the host, 0 when it has none."""
        pid: int = self.state["pid"]
        return pid

    @property
    def bundle(self) -> Bundle:
        """The bundle it was made from."""
        return Bundle(self._record().bundle)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration it was made from, with the changes of update()."""
        return store.load_config(self._record())

    @property
    def stdin(self) -> Any:
        """Our end of its program's stdin, if that is a PIPE."""
        return self.init and self.init.stdin

    @property
    def stdout(self) -> Any:
        """Our end of its program's stdout, if that is a PIPE."""
        return self.init and self.init.stdout

    @property
    def stderr(self) -> Any:
        """Our end of its program's stderr, if that is a PIPE."""
        return self.init and self.init.stderr

    def inspect(self) -> dict[str, Any]:
        """Return all that is known about it, as `pyrunc inspect` prints it."""
        from pyrunc.verbs import inspect

        return worker.listening(lambda: inspect.inspect(command("inspect", {}, id=self.id, root=self.root)))

    def processes(self) -> list[int]:
        """Return the pids of its processes on the host."""
        from pyrunc.apply import processes

        return processes.of(self._record())

    def stats(self) -> dict[str, Any]:
        """Return the resources it uses, as `pyrunc events --stats` prints them."""
        from pyrunc.apply.cgroups import statistics

        return statistics.stats(self._record().cgroup)

    def events(self, interval: float = 5.0) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Report the resources it uses, and when it runs out of memory, until it has ended.

        Args:
            interval: seconds between two records.

        Yields:
            "stats" and the result of stats(), or "oom" and None.

        """
        from pyrunc.verbs import events

        return events.stream(self._record(), interval)

    # -- what it does ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start its program; return when it runs and the poststart hooks have ended.

        Raises:
            Failure: the program cannot be executed, a hook failed, or the container is not "created".

        """
        worker.call(command("start", {}, id=self.id, root=self.root), (worker.NOTHING,) * 3).close()

    def kill(self, signal: int | str = "TERM", *, all: bool = False) -> None:  # noqa: A002 - the option's name
        """Send a signal to its first process.

        Args:
            signal: a number, or a name with or without SIG.
            all: send it to every process of the container.

        Raises:
            Failure: there is no such signal, or the container does not run ("container not running").

        """
        from pyrunc.life import signals

        number = signals.number(str(int(signal) if isinstance(signal, int) else signal))
        worker.listening(lambda: signals.send(self._record(), number, everyone=all))

    def pause(self) -> None:
        """Freeze all its processes.

        Raises:
            Failure: it does not run.

        """
        from pyrunc.life import pausing

        worker.listening(lambda: pausing.pause(self._record()))

    def resume(self) -> None:
        """Resume all its processes.

        Raises:
            Failure: it is not paused.

        """
        from pyrunc.life import pausing

        worker.listening(lambda: pausing.resume(self._record()))

    def update(self, resources: Mapping[str, Any]) -> None:
        """Change its limits.

        Args:
            resources: members of linux.resources in config.json; what is left out stays as it is.

        Raises:
            Failure: they are invalid, it does not run, or the kernel refuses one; then none is changed.

        """
        from pyrunc.verbs import update

        def change() -> None:
            update.update(self._record(), update.parse(jsonio.dumps(resources).encode(), "resources"))

        worker.listening(change)

    def checkpoint(self, images: Path, **options: Unpack[CriuOptions]) -> None:
        """Write it to image files, with CRIU. Its processes end then, unless leave_running is set.

        Args:
            images: the directory for them.
            options: those of `pyrunc checkpoint`.

        Raises:
            Failure: it does not run, or CRIU failed.

        """
        words = {"id": self.id, "root": self.root, "image_path": os.path.abspath(images)}
        worker.call(command("checkpoint", options, **words), (worker.NOTHING,) * 3).close()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until its first process has ended.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Its exit status, -N when signal N ended it; None when it is not known. That is possible
            only if this object did not make the container: see `pyrunc wait`.

        Raises:
            subprocess.TimeoutExpired: it still runs.

        """
        if self.init is not None:
            return self.init.wait(timeout)
        from pyrunc.apply import exit_status

        try:
            return exit_status.wait(self._record(), timeout)
        except TimeoutError:
            raise subprocess.TimeoutExpired([self.id], timeout or 0.0) from None

    def stop(self, timeout: float = 10, *, signal: int | str | None = None) -> None:
        """Ask its program to end, and kill it if it does not; as `pyrunc stop`.

        Args:
            timeout: seconds it has to end by itself; 0 to kill at once, a negative number for no limit.
            signal: a number, or a name with or without SIG; None for that of its configuration, or TERM.

        Raises:
            Failure: there is no such signal, or the program does not end.

        """
        from pyrunc.verbs import stop

        word = str(int(signal)) if isinstance(signal, int) else signal
        worker.listening(lambda: stop.stop(self._record(), seconds=timeout, signal=word))

    def delete(self, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it and everything that was made for it.

        Args:
            force: kill it first if it runs; a container that does not exist is no error.
            volumes: also remove the anonymous volumes that were made for it.

        Raises:
            Failure: it has not stopped, or something of it cannot be removed.

        """
        asked = command("delete", {}, id=self.id, root=self.root, force=force, volumes=volumes)
        worker.call(asked, (worker.NOTHING,) * 3).close()
        if self.init is not None:
            try:
                self.init.poll() if not force else self.init.wait(10)
            except (Failure, subprocess.TimeoutExpired):
                pass  # its exit status is not known, but it is deleted
            self.init.close()

    def spawn(
        self,
        args: Sequence[str],
        *,
        stdin: Given = None,
        stdout: Given = None,
        stderr: Given = None,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
        **options: Unpack[ExecOptions],
    ) -> Process:
        """Start one more process in it, and do not wait for its end.

        Args:
            args: program and arguments.
            stdin: as for create().
            stdout: the same.
            stderr: the same.
            pass_fds: the same.
            env: variables to set, in addition to those of the container's own process.
            options: those of `pyrunc exec`.

        Raises:
            Failure: it cannot be started.

        """
        words = {"id": self.id, "root": self.root, "args": list(args), "detach": True}
        words["env"] = [f"{name}={value}" for name, value in (env or {}).items()]
        streams = Streams(stdin, stdout, stderr)
        try:
            channel = worker.call(command("exec", options, **words), streams.theirs, pass_fds)
            streams.handed_over()
        except BaseException:
            streams.close()
            raise
        return Process(args, channel, streams)

    def exec(
        self,
        args: Sequence[str],
        *,
        input: bytes | str | None = None,  # noqa: A002 - subprocess's name for it
        capture_output: bool = False,
        text: bool = False,
        check: bool = False,
        timeout: float | None = None,
        stdin: Given = None,
        stdout: Given = None,
        stderr: Given = None,
        env: Mapping[str, str] | None = None,
        **options: Unpack[ExecOptions],
    ) -> Completed:
        """Run one more process in it and wait for its end, as subprocess.run() runs a program.

        Args:
            args: program and arguments.
            input: the content of its stdin.
            capture_output: return what it writes.
            text: what it reads and writes is UTF-8.
            check: a status other than 0 is an error.
            timeout: seconds after which it is killed.
            stdin: as for create().
            stdout: the same.
            stderr: the same.
            env: variables to set, in addition to those of the container's own process.
            options: those of `pyrunc exec`.

        Raises:
            Failure: it cannot be started.
            subprocess.TimeoutExpired: it took too long, and was killed.
            subprocess.CalledProcessError: check, and its status is not 0.

        """
        stdin, stdout, stderr = captured(input, stdin, stdout, stderr, capture=capture_output)
        with self.spawn(args, stdin=stdin, stdout=stdout, stderr=stderr, env=env, **options) as process:
            try:
                return finish(process, input, timeout, text=text, check=check)
            except subprocess.TimeoutExpired:
                process.kill("KILL")
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.delete(force=True)

    def __repr__(self) -> str:
        return f"pyrunc.Container({self.id!r}, root={self.root!r})"


def state_root(root: Path | None) -> str:
    """Return the absolute path of the state root."""
    return os.path.abspath(root) if root else store.default_root()


def _place(bundle: Bundle) -> dict[str, str]:
    """Return the options that name a bundle."""
    found = {"bundle": bundle.path}
    if bundle.config_path != f"{bundle.path}/config.json":
        found["config"] = bundle.config_path
    return found


def _quietly_delete(root: str, name: str) -> None:
    """Remove what an interrupted call may have left."""
    asked = command("delete", {}, id=name, root=root, force=True)
    try:
        worker.call(asked, (worker.NOTHING,) * 3).close()
    except Failure:
        return  # the caller reports the interruption, not this
