"""A process that enters is read or traced: CVE-2016-9962, bubblewrap CVE-2016-8659.

`exec` joins namespaces in which hostile processes already run. Until it has become a process of the
container like any other, none of them may read its descriptors, memory, environment or root, or trace it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.containers import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.containers import Bundle, Runtime

SPY = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static int seen, spied;
static char what[4096];

static void note(const char *name, const char *text)
{
    spied++;
    if (strlen(what) < 3000)
        snprintf(what + strlen(what), 600, "%s %.200s; ", name, text);
}

/* A process of the image has busybox for a program; whose program cannot be read yet is on its way in. */
static int arriving(const char *pid)
{
    char path[300], name[300] = "";
    snprintf(path, sizeof path, "/proc/%s/comm", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return 0;
    if (read(fd, name, sizeof name - 1) < 0)
        name[0] = 0;
    close(fd);
    return strncmp(name, "spy", 3) && strncmp(name, "sh", 2) && strncmp(name, "sleep", 5) &&
           strncmp(name, "true", 4);
}

static void spy_on(const char *pid)
{
    char path[600], text[600];
    seen++;
    const char *links[] = {"root", "cwd", "exe"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "/proc/%s/%s", pid, links[i]);
        memset(text, 0, sizeof text);
        if (readlink(path, text, sizeof text - 1) > 0 && strcmp(text, "/") && strncmp(text, "/bin/", 5))
            note(links[i], text);
    }
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *fds = opendir(path);
    if (fds) {
        for (struct dirent *fd; (fd = readdir(fds));)
            if (atoi(fd->d_name) > 2) {
                snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, fd->d_name);
                memset(text, 0, sizeof text);
                if (readlink(path, text, sizeof text - 1) > 0)
                    note("fd", text);
            }
        closedir(fds);
    }
    snprintf(path, sizeof path, "/proc/%s/environ", pid);
    int fd = open(path, O_RDONLY);
    if (fd >= 0) {
        memset(text, 0, sizeof text);
        if (read(fd, text, sizeof text - 1) > 0 && strstr(text, "RUNTIME_SECRET"))
            note("environ", text);
        close(fd);
    }
    snprintf(path, sizeof path, "/proc/%s/mem", pid);
    fd = open(path, O_RDONLY);
    if (fd >= 0 && arriving(pid))
        note("mem", "");
    if (fd >= 0)
        close(fd);
}

int main(void)
{
    while (access("/stop", F_OK)) {
        DIR *proc = opendir("/proc");
        for (struct dirent *entry; (entry = readdir(proc));)
            if (atoi(entry->d_name) > 1 && atoi(entry->d_name) != getpid() && arriving(entry->d_name))
                spy_on(entry->d_name);
        closedir(proc);
    }
    FILE *out = fopen("/result.new", "w");
    fprintf(out, "seen %d spied %d %s\n", seen, spied, what);
    fclose(out);
    rename("/result.new", "/result");
    return 0;
}
"""


@pytest.mark.parametrize("user_namespace", [False, True])
def test_a_spy_in_the_container_learns_nothing(
    bundle: Bundle,
    runtime: Runtime,
    compiled: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    *,
    user_namespace: bool,
) -> None:
    monkeypatch.setenv("RUNTIME_SECRET", "of the engine")
    program = compiled("spy", SPY)
    (bundle.rootfs / "spy").write_bytes(program.read_bytes())
    (bundle.rootfs / "spy").chmod(0o755)
    (bundle.rootfs).chmod(0o777)
    if user_namespace:
        bundle.user_namespace()
    name = runtime.started(bundle, "/spy; sleep 1000")
    for _ in range(25):
        assert runtime("exec", name, "/bin/true").returncode == 0
    (bundle.rootfs / "stop").touch()
    result = bundle.rootfs / "result"
    assert wait_for(result.exists)
    assert " spied 0 " in result.read_text()
