"""A container process locks a file for which the runtime would wait.

To lock a file, a process only needs the right to open it: every process that can read a directory can lock
it, and never release the lock. So pyrunc must not wait without a limit for a lock on anything a container
can open, least of all the directory of its root file system, which every process in it opens as "/".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containers import Bundle, Runtime

# Both kinds of locks, shared and not, on every directory there is that the runtime has to do with.
LOCKER = r"""
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

int main(int count, char **words)
{
    struct flock all = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    for (int i = 1; i < count; i++) {
        int fd = open(words[i], O_RDONLY);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) || fcntl(fd, F_OFD_SETLK, &all))
            return perror(words[i]), 1;
    }
    close(open("/locked", O_CREAT | O_WRONLY, 0600));
    return pause();
}
"""


@pytest.fixture
def locking(bundle: Bundle, runtime: Runtime, compiled: object, tmp_path: Path) -> str:
    """A container that has locked its root, its mount points and its volume."""
    program: Path = compiled("locker", "#define _GNU_SOURCE\n" + LOCKER)  # type: ignore[operator]
    (bundle.rootfs / "locker").write_bytes(program.read_bytes())
    (bundle.rootfs / "locker").chmod(0o755)
    (tmp_path / "volume").mkdir()
    bundle.mount("/made/volume", tmp_path / "volume")
    name = runtime.started(bundle, "exec /locker / /made /made/volume /proc /dev /bin")
    assert wait_for((bundle.rootfs / "locked").exists)
    return name


def test_nobody_waits_for_it(bundle: Bundle, runtime: Runtime, locking: str, tmp_path: Path) -> None:
    for words in (
        ("mounts", locking, "--add", f"{tmp_path}/volume:/more/added"),
        ("mounts", locking, "--remove", "/more/added"),
        ("update", "--pids-limit", "50", locking),
        ("exec", locking, "/bin/true"),
        ("pause", locking),
        ("resume", locking),
        ("ps", locking),
    ):
        done = runtime(*words)
        assert done.returncode == 0, done.stdout
    assert runtime.output(bundle, "echo beside it") == "beside it\n"
    assert runtime("delete", "--force", locking).returncode == 0
    # Nor did it keep what was made for it.
    assert not {"made", "more"} & set(os.listdir(bundle.rootfs))
    assert (tmp_path / "volume").is_dir()


def test_another_goes_while_it_stays(bundle: Bundle, runtime: Runtime, locking: str, tmp_path: Path) -> None:
    """Mount points that were made for a second container are removed when that one is deleted."""
    bundle.mount("/second/point", tmp_path / "volume")
    second = runtime.started(bundle)
    assert (bundle.rootfs / "second").is_dir()
    assert runtime("delete", "--force", second).returncode == 0
    assert not (bundle.rootfs / "second").exists()
    assert (bundle.rootfs / "made").is_dir()
    assert runtime("state", locking).returncode == 0
