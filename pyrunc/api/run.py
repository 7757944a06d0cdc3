"""run() and containers(): calls that need no Container object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrunc import listing
from pyrunc.api import worker
from pyrunc.api.container import Container, state_root
from pyrunc.api.process import captured, finish
from pyrunc.errors import Failure

if TYPE_CHECKING:
    import os
    import subprocess
    from collections.abc import Sequence
    from typing import TypeAlias, Unpack

    from pyrunc.api.bundle import Bundle
    from pyrunc.api.options import CreateOptions
    from pyrunc.api.process import Given

    Path: TypeAlias = str | os.PathLike[str]
    Completed: TypeAlias = subprocess.CompletedProcess[Any]


def containers(root: Path | None = None) -> list[Container]:
    """Return the containers of a state root; none if it does not exist.

    Raises:
        Failure: it cannot be read.

    """
    directory = state_root(root)
    try:
        names = listing.ids(directory)
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise Failure(f"open {directory}", errno=exc.errno or 0) from None
    found = []
    for name in names:
        try:
            found.append(Container(name, root=directory))
        except Failure as problem:
            # A record that cannot be read hides no other container; a container may just have been deleted.
            worker.listening(lambda problem=problem: _warn(problem))  # type: ignore[misc]
    return found


def run(
    bundle: Bundle | Path,
    id: str | None = None,  # noqa: A002 - the specification's name
    *,
    root: Path | None = None,
    input: bytes | str | None = None,  # noqa: A002 - subprocess's name for it
    capture_output: bool = False,
    text: bool = False,
    check: bool = False,
    timeout: float | None = None,
    stdin: Given = None,
    stdout: Given = None,
    stderr: Given = None,
    pass_fds: Sequence[int] = (),
    **options: Unpack[CreateOptions],
) -> Completed:
    """Run a bundle's program in a container and wait for its end, as subprocess.run() runs a program.

    Args:
        bundle: a Bundle, or the directory of one.
        id: the container's id; None for a random one.
        root: the state root.
        input: the content of its stdin.
        capture_output: return what it writes.
        text: what it reads and writes is UTF-8.
        check: a status other than 0 is an error.
        timeout: seconds after which it is killed.
        stdin: as for Container.create().
        stdout: the same.
        stderr: the same.
        pass_fds: the same.
        options: those of `pyrunc create`.

    Returns:
        Its arguments, returncode (-N when signal N ended it), stdout and stderr. The container is deleted.

    Raises:
        Failure: the container cannot be made, or its program cannot be executed.
        subprocess.TimeoutExpired: it took too long, and was killed.
        subprocess.CalledProcessError: check, and its status is not 0.

    """
    stdin, stdout, stderr = captured(input, stdin, stdout, stderr, capture=capture_output)
    with Container.create(
        bundle, id, root=root, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=pass_fds, **options
    ) as made:
        made.start()
        assert made.init is not None
        return finish(made.init, input, timeout, text=text, check=check)


def _warn(problem: Failure) -> None:
    from pyrunc import log

    log.warn(problem.text())
