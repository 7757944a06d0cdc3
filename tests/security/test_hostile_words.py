"""Text that a container writes: names that are not text, names with line ends, endless files.

Everything that a container may name or fill is read as bytes, up to a limit, and without waiting. A name that
cannot be decoded, or has a line end in it, must not prevent a container from being listed, inspected or
removed, and must not control the terminal on which it is shown.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.cgroups import paths
from tests.support.containers import wait_for
from tests.support.unified import cgroup_file, engines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

# Not UTF-8; ends of lines as Python and terminals know them; what clears the screen; escapes as the kernel's.
NAMES = {
    "no text": b"\xff\xfe\x80",
    "line ends": b"a\r\x0b\x0c\x1c\x85\xe2\x80\xa8b",
    "escapes": b"\x1b[2J\x1b]0;owned\x07",
    "octal": rb"\134\888\x41 \#",
    "words": b"0::  - tmpfs (deleted)",
}
# Moves init into a cgroup of that name, mounts something at a place of that name, and takes it for its own.
NAMER = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int count, char **words)
{
    char name[256] = {0}, path[600], line[300];
    int length = 0;
    for (const char *hex = words[1]; hex[0]; hex += 2)
        sscanf(hex, "%2hhx", (unsigned char *)&name[length++]);
    for (int i = 2; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s", words[i], name);
        mkdir(path, 0755);
        snprintf(path, sizeof path, "%s/%s/cgroup.procs", words[i], name);
        int fd = open(path, O_WRONLY);
        if (fd >= 0 && write(fd, "0", 1) != 1)
            perror("not joined"); /* a new cpuset takes nobody */
        close(fd);
    }
    /* In a mount point there can be line ends, too. */
    snprintf(path, sizeof path, "/tmp/%s\n%s", name, name);
    if (mkdir(path, 0755) || mount("none", path, "tmpfs", 0, "size=4k"))
        return perror("mount"), 1;
    snprintf(line, sizeof line, ")\n%s", name);
    prctl(PR_SET_NAME, line);
    close(open("/named", O_CREAT | O_WRONLY, 0600));
    for (;;)
        pause();
}
"""


@pytest.fixture(params=["this host", "version 2"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    made = engines(request.param, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("word", NAMES)
def test_names(engine: Engine, bundle: Bundle, compiled: Callable[..., Path], word: str) -> None:
    program = bundle.rootfs / "namer"
    program.write_bytes(compiled("namer", NAMER).read_bytes())
    program.chmod(0o755)
    bundle.capabilities("CAP_SYS_ADMIN")
    bundle.mount("/sys/fs/cgroup", "cgroup", "rw", kind="cgroup")
    bundle.linux["namespaces"].append({"type": "cgroup"})
    name = engine.start(bundle, f"exec /namer {NAMES[word].hex()} /sys/fs/cgroup /sys/fs/cgroup/*")
    assert wait_for((bundle.rootfs / "named").exists)
    tops = paths(engine, name).values()

    assert engine.status(name) == "running"
    pid = engine.state(name)["pid"]
    assert json.loads(engine.call("ps", "--format", "json", name).ok().out) == [pid]
    point = "/tmp/" + "\n".join([os.fsdecode(NAMES[word])] * 2)
    rows = json.loads(engine.call("mounts", "--json", name).ok().out)
    assert point in [row["target"] for row in rows]
    for words in (("mounts", name), ("mounts", "--check", name), ("ps", name), ("list",)):
        shown = engine.call(*words)
        assert shown.err == ""
        assert all(line.isprintable() for line in shown.out.splitlines()), shown
    engine.call("exec", name, "/bin/true").ok()
    engine.call("pause", name).ok()
    engine.call("resume", name).ok()
    engine.call("events", "--stats", name).ok()
    engine.call("delete", "--force", name).ok()
    assert {cgroup_file(engine, path) for path in tops} == {None}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def without_end(path: Path) -> None:
    """A file with one line of a tebibyte."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


def endless_device(path: Path) -> None:
    os.mknod(path, 0o020666, os.makedev(1, 5))


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def directory(path: Path) -> None:
    path.mkdir()


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\0:\xff:\xff:0\n" + b"root:x:0:0:\xff:/\xff\xfe:/bin/sh\n" * 3 + b"::::" * 1000)


@pytest.mark.parametrize("make", [fifo, without_end, endless_device, loop, directory, no_text])
@pytest.mark.parametrize("file", ["passwd", "group"])
def test_files_of_the_image(engine: Engine, bundle: Bundle, file: str, make: Callable[[Path], None]) -> None:
    (bundle.rootfs / "etc" / file).unlink()
    make(bundle.rootfs / "etc" / file)
    name = engine.start(bundle)
    engine.call("exec", name, "/bin/true").ok()
    engine.call("exec", "--user", "7", name, "/bin/true").ok()
    engine.call("delete", "--force", name).ok()
