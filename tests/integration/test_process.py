"""A process as it finds itself at its start: everything under /process of the configuration."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import CAPABILITIES, DEADLINE
from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine

ours = pytest.mark.skipif(FOREIGN, reason="what the specification says, where runc 1.1 differs or is older")


def fields(engine: Engine, bundle: Bundle, *names: str) -> dict[str, str]:
    """Return lines of the process's own /proc/self/status.

    A shell is not used, because it changes signals.
    """
    bundle.process["args"] = ["/bin/cat", "/proc/self/status"]
    done = engine.front(bundle).ok()
    lines = dict(line.split(":\t", 1) for line in done.out.splitlines() if ":\t" in line)
    return {name: lines[name].strip() for name in names}


# -- how it ends


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -9 $$; exit 1", 1),
        ("sh -c 'kill -9 $$'; exit $?", 137),
    ],
)
def test_the_exit_status(engine: Engine, bundle: Bundle, script: str, code: int) -> None:
    # A signal without a handler that pid 1 sends to itself does nothing (pid_namespaces(7)).
    assert engine.front(bundle, script).code == code


def test_a_signal_as_exit_status(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/sleep", "1000"]
    bundle.write()
    name = engine.new_id()
    running = engine.begin("run", "--bundle", str(bundle.path), name)
    engine.until_running(name)
    engine.call("kill", name, "KILL").ok()
    assert running.wait(60) == 137


# -- environment


def test_the_environment_is_the_configured_one(engine: Engine, bundle: Bundle) -> None:
    bundle.process["env"] = ["PATH=/bin", "A=1", "B=x=y", "EMPTY=", "A=2", "L=ä\n"]
    done = engine.front(bundle, "cat /proc/self/environ", env={**os.environ, "SECRET": "1"}).ok()
    found = sorted(done.out.split("\0"))
    wanted = sorted(["", "PATH=/bin", "A=2", "B=x=y", "EMPTY=", "L=ä\n", "HOME=/root"])
    # The shell may add its own.
    assert [word for word in found if word.split("=")[0] not in {"PWD", "SHLVL", "OLDPWD", "_"}] == wanted


@pytest.mark.parametrize(
    ("uid", "env", "home"),
    [
        (0, [], "/root"),
        (0, ["HOME=/elsewhere"], "/elsewhere"),
        (0, ["HOME="], "/root"),
        (1000, [], "/home/someone"),
        (4711, [], "/"),
    ],
)
def test_home_comes_from_the_container_s_passwd(
    engine: Engine, bundle: Bundle, uid: int, env: list[str], home: str
) -> None:
    with (bundle.rootfs / "etc/passwd").open("a") as passwd:
        passwd.write("broken line\nsomeone:x:1000:1000::/home/someone:/bin/sh\n")
    bundle.process["user"] = {"uid": uid, "gid": uid}
    bundle.process["env"] = ["PATH=/bin", *env]
    assert engine.front(bundle, "echo $HOME").ok().out == home + "\n"


@ours
@pytest.mark.parametrize("word", ["NOVALUE", "=x", "A=\0"])
def test_an_environment_entry_that_is_none(engine: Engine, bundle: Bundle, word: str) -> None:
    bundle.process["env"] = ["PATH=/bin", word]
    engine.front(bundle, "exit 0").fails("/process/env/1")


# -- directory


@pytest.mark.parametrize("path", ["/", "/tmp", "/made/when/missing", "/link"])
def test_the_directory(engine: Engine, bundle: Bundle, path: str) -> None:
    (bundle.rootfs / "link").symlink_to("/tmp")
    bundle.process["cwd"] = path
    assert engine.front(bundle, "readlink /proc/self/cwd").ok().out.strip() == path.replace("/link", "/tmp")


@pytest.mark.parametrize("path", ["/made", "/tmp/made/deep", "/proc/nosuch"])
def test_a_directory_that_is_made_in_a_read_only_root(engine: Engine, bundle: Bundle, path: str) -> None:
    bundle.config["root"]["readonly"] = True
    bundle.process["cwd"] = path
    done = engine.front(bundle, "pwd; touch file 2>&1; true")
    if path.startswith("/proc"):
        done.fails(f'chdir to cwd ("{path}")')
    else:
        assert done.ok().out.startswith(f"{path}\n")
        assert "Read-only file system" in done.out


def test_the_directory_of_a_user(engine: Engine, bundle: Bundle) -> None:
    """Without CAP_DAC_OVERRIDE root may not enter it; its owner may."""
    home = bundle.rootfs / "home/someone"
    home.mkdir(parents=True)
    home.chmod(0o700)
    os.chown(home, 1000, 1000)
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["cwd"] = "/home/someone"
    assert engine.front(bundle, "pwd").ok().out == "/home/someone\n"


def test_a_directory_that_is_not_absolute(engine: Engine, bundle: Bundle) -> None:
    bundle.process["cwd"] = "tmp"
    engine.front(bundle, "exit 0").fails("absolute path")


def test_a_directory_that_is_a_file(engine: Engine, bundle: Bundle) -> None:
    bundle.process["cwd"] = "/etc/passwd"
    engine.front(bundle, "exit 0").fails("/etc/passwd", "not a directory")


# -- user


def test_user_and_groups_are_exact(engine: Engine, bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 2000, "additionalGids": [3000, 4000]}
    found = fields(engine, bundle, "Uid", "Gid", "Groups")
    assert found["Uid"].split() == ["1000"] * 4
    assert found["Gid"].split() == ["2000"] * 4
    assert sorted(found["Groups"].split()) in (["3000", "4000"], ["2000", "3000", "4000"])


def test_the_caller_s_groups_are_not_kept(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/cat", "/proc/self/status"]
    bundle.write()
    done = engine.call("run", "--bundle", str(bundle.path), engine.new_id(), extra_groups=[4711, 4712]).ok()
    assert "4711" not in done.out


@ours
@pytest.mark.parametrize("callers", [0, 0o22, 0o77])
@pytest.mark.parametrize(("user", "mask"), [({}, "0022"), ({"umask": 0o27}, "0027"), ({"umask": 0}, "0000")])
def test_the_umask(engine: Engine, bundle: Bundle, user: dict[str, int], mask: str, callers: int) -> None:
    """It is the one of the configuration, otherwise 0022, for run and for exec; never the caller's."""
    bundle.process["user"] = {"uid": 0, "gid": 0, **user}
    assert engine.front(bundle, "umask", umask=callers).ok().out.strip() == mask
    name = engine.start(bundle)
    assert engine.call("exec", name, "sh", "-c", "umask", umask=callers).ok().out.strip() == mask


def test_standard_streams_belong_to_the_user(engine: Engine, bundle: Bundle) -> None:
    """A process that re-opens /dev/stdout must be allowed to."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    reader, writer = os.pipe()
    bundle.process["args"] = ["/bin/sh", "-c", "echo again > /proc/self/fd/1"]
    bundle.write()
    engine.call("run", "--bundle", str(bundle.path), engine.new_id(), stdout=writer).ok()
    os.close(writer)
    assert os.read(reader, 100) == b"again\n"
    os.close(reader)


# -- rights


def capability_mask(*names: str) -> int:
    from pyrunc.plan import process

    return sum(1 << process.CAPABILITIES[name] for name in names)


def capabilities_of(engine: Engine, bundle: Bundle) -> dict[str, int]:
    found = fields(engine, bundle, "CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb")
    return {name: int(value, 16) for name, value in found.items()}


def test_capabilities_of_root(engine: Engine, bundle: Bundle) -> None:
    wanted = capability_mask(*CAPABILITIES)
    found = capabilities_of(engine, bundle)
    assert found == {"CapBnd": wanted, "CapPrm": wanted, "CapEff": wanted, "CapInh": 0, "CapAmb": 0}


def test_no_capabilities(engine: Engine, bundle: Bundle) -> None:
    bundle.process["capabilities"] = {}
    assert set(capabilities_of(engine, bundle).values()) == {0}


def test_capabilities_of_a_user_go_with_execve_unless_ambient(engine: Engine, bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    kept, lost = "CAP_NET_RAW", "CAP_CHOWN"
    bundle.process["capabilities"] = {
        "bounding": [kept, lost],
        "permitted": [kept, lost],
        "effective": [kept, lost],
        "inheritable": [kept],
        "ambient": [kept],
    }
    found = capabilities_of(engine, bundle)
    mask = capability_mask(kept)
    assert found == {
        "CapBnd": capability_mask(kept, lost),
        "CapPrm": mask,
        "CapEff": mask,
        "CapInh": mask,
        "CapAmb": mask,
    }


def test_an_unknown_capability_is_left_out(engine: Engine, bundle: Bundle) -> None:
    for names in bundle.process["capabilities"].values():
        names.append("CAP_TO_FLY")
    done = engine.front(bundle, "grep CapBnd /proc/self/status")
    assert done.code == 0, done
    assert int(done.out.split()[1], 16) == capability_mask(*CAPABILITIES)
    assert "CAP_TO_FLY" in done.err, done


@pytest.mark.parametrize("wish", [True, False])
def test_no_new_privileges(engine: Engine, bundle: Bundle, *, wish: bool) -> None:
    bundle.process["noNewPrivileges"] = wish
    assert fields(engine, bundle, "NoNewPrivs") == {"NoNewPrivs": str(int(wish))}


# -- limits and classes


def test_resource_limits(engine: Engine, bundle: Bundle) -> None:
    bundle.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 300, "hard": 400},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_FSIZE", "soft": 4096, "hard": 18446744073709551615},
    ]
    out = engine.front(bundle, "cat /proc/self/limits").ok().out
    lines = {line[:26].strip(): line[26:].split()[:2] for line in out.splitlines()}
    assert lines["Max open files"] == ["300", "400"]
    assert lines["Max core file size"] == ["0", "0"]
    assert lines["Max file size"] == ["4096", "unlimited"]


@ours
@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ([{"type": "RLIMIT_WIT", "soft": 1, "hard": 1}], ["RLIMIT_WIT", "/process/rlimits/0/type"]),
        ([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}], ["/process/rlimits/0"]),
        ([{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}] * 2, ["RLIMIT_CORE", "/process/rlimits/1"]),
    ],
)
def test_resource_limits_that_cannot_be(
    engine: Engine, bundle: Bundle, limits: list[dict[str, object]], words: list[str]
) -> None:
    bundle.process["rlimits"] = limits
    engine.front(bundle, "exit 0").fails(*words)


@pytest.mark.parametrize("value", [0, 500, 1000])
def test_the_oom_score(engine: Engine, bundle: Bundle, value: int) -> None:
    bundle.process["oomScoreAdj"] = value
    assert engine.front(bundle, "cat /proc/self/oom_score_adj").ok().out == f"{value}\n"


def has_sys_resource() -> bool:
    """Tell whether we have CAP_SYS_RESOURCE: bit 24 of the effective set."""
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> 24 & 1)


@pytest.mark.skipif(not has_sys_resource(), reason="needs CAP_SYS_RESOURCE")
class TestWithSysResource:
    """What the kernel allows only with CAP_SYS_RESOURCE of the runtime; the container need not have it."""

    def test_limits_above_the_callers_own(self, engine: Engine, bundle: Bundle) -> None:
        kinds = {
            "RLIMIT_NPROC": "Max processes",
            "RLIMIT_MEMLOCK": "Max locked memory",
            "RLIMIT_RTPRIO": "Max realtime priority",
        }
        infinite = (1 << 64) - 1
        bundle.process["rlimits"] = [{"type": kind, "soft": infinite, "hard": infinite} for kind in kinds]
        bundle.process["args"] = ["/bin/cat", "/proc/self/limits"]
        bundle.write()
        lower = ["prlimit", "--nproc=10000", "--memlock=65536", "--rtprio=0"]
        argv = engine.argv("run", "--bundle", str(bundle.path), engine.new_id())
        done = subprocess.run([*lower, *argv], capture_output=True, text=True, check=False, timeout=DEADLINE)
        assert (done.returncode, done.stderr) == (0, "")
        for name in kinds.values():
            line = next(line for line in done.stdout.splitlines() if line.startswith(name))
            assert line.removeprefix(name).split()[:2] == ["unlimited"] * 2

    def test_a_lower_oom_score(self, engine: Engine, bundle: Bundle) -> None:
        own = int(Path("/proc/self/oom_score_adj").read_text())
        bundle.process["oomScoreAdj"] = own - 500
        script = "cat /proc/self/oom_score_adj"
        assert engine.front(bundle, script).ok().out == f"{own - 500}\n"
        name = engine.start(bundle)
        assert engine.call("exec", name, "sh", "-c", script).ok().out == f"{own - 500}\n"


@ours
def test_the_scheduler(engine: Engine, bundle: Bundle) -> None:
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    stat = engine.front(bundle, "cat /proc/self/stat").ok().out.rsplit(")", 1)[1].split()
    assert stat[16] == "7"  # field 19 of proc_pid_stat(5), counted after the name: nice
    assert stat[38] == "3"  # field 41: policy


@ours
def test_a_deadline_without_a_runtime(engine: Engine, bundle: Bundle) -> None:
    bundle.process["scheduler"] = {"policy": "SCHED_DEADLINE", "deadline": 10_000_000}
    engine.front(bundle, "exit 0").fails("/process/scheduler/runtime", "SCHED_DEADLINE needs a")


@ours
def test_the_io_priority(engine: Engine, bundle: Bundle) -> None:
    (bundle.rootfs / "bin/ionice").symlink_to("busybox")
    bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    assert engine.front(bundle, "ionice -p $$").ok().out.strip() == "best-effort: prio 6"


@ours
def test_the_personality(engine: Engine, bundle: Bundle) -> None:
    (bundle.rootfs / "bin/uname").symlink_to("busybox")
    bundle.linux["personality"] = {"domain": "LINUX32"}
    assert engine.front(bundle, "uname -m").ok().out.strip() in {
        "i686",
        "armv8l",
        "armv7l",
        "ppc",
        "s390",
        "i386",
    }


# -- what else it inherits


def test_no_descriptor_leaks_in(engine: Engine, bundle: Bundle) -> None:
    with open("/etc/passwd", "rb") as file:
        fds = [os.dup2(file.fileno(), number) for number in (55, 77)]
        script = "for fd in /proc/self/fd/*; do readlink $fd || true; done; ls /proc/$$/fd; true"
        bundle.process["args"] = ["/bin/sh", "-c", script]
        bundle.write()
        done = engine.call("run", "--bundle", str(bundle.path), engine.new_id(), pass_fds=fds).ok()
        for fd in fds:
            os.close(fd)
    assert "passwd" not in done.out
    assert done.out.split()[-3:] == ["0", "1", "2"]


def test_a_created_container_s_process_holds_nothing_either(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle, "ls -l /proc/1/fd; sleep 1000")
    pid = engine.state(name)["pid"]
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]


@ours
def test_signals_are_as_by_default(engine: Engine, bundle: Bundle) -> None:
    found = fields(engine, bundle, "SigBlk", "SigIgn", "SigCgt")
    assert {name: int(value, 16) & 0x7FFFFFFF for name, value in found.items()} == {
        "SigBlk": 0,
        "SigIgn": 0,
        "SigCgt": 0,
    }


def test_a_broken_pipe_ends_it(engine: Engine, bundle: Bundle) -> None:
    """Python ignores SIGPIPE.

    If the container ignored it as well, it would print errors instead of ending.
    """
    reader, writer = os.pipe()
    os.close(reader)
    bundle.process["args"] = ["/bin/sh", "-c", "yes & wait $!; exit $?"]
    (bundle.rootfs / "bin/yes").symlink_to("busybox")
    bundle.write()
    done = engine.call("run", "--bundle", str(bundle.path), engine.new_id(), stdout=writer)
    os.close(writer)
    assert done.code == 128 + signal.SIGPIPE, done


def test_it_leads_a_session(engine: Engine, bundle: Bundle) -> None:
    stat = engine.front(bundle, "cat /proc/$$/stat").ok().out.rsplit(")", 1)[1].split()
    assert stat[2:4] == ["1", "1"]  # process group and session are its own
    assert stat[4] == "0"  # no terminal


def test_stdin_and_stdout_are_the_caller_s(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/cat"]
    bundle.write()
    done = subprocess.run(
        engine.argv("run", "--bundle", str(bundle.path), engine.new_id()),
        input=b"through\n" * 20000,
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"through\n" * 20000
    assert done.stderr == b""


# -- what cannot be started


@pytest.mark.parametrize(
    ("program", "texts"),
    [
        ("/nosuch", ["/nosuch", "no such file or directory"]),
        ("nosuch", ["nosuch", "executable file not found in $PATH"]),
        ("/tmp", ["/tmp", "is a directory", "permission denied"]),
        ("/etc/passwd", ["/etc/passwd", "permission denied"]),
        ("./relative/nosuch", ["no such file or directory"]),
    ],
)
def test_a_program_that_is_not_there_fails_create(
    engine: Engine, bundle: Bundle, program: str, texts: list[str]
) -> None:
    bundle.process["args"] = [program]
    bundle.write()
    engine.call("create", "--bundle", str(bundle.path), engine.new_id()).fails(*texts)
    assert engine.call("list", "-q").ok().out == ""


@pytest.mark.parametrize(
    ("content", "text"),
    [("#!/nosuch/shell\n", "no such file or directory"), ("no program\n", "exec format error")],
)
def test_a_program_that_the_kernel_refuses_fails_start(
    engine: Engine, bundle: Bundle, content: str, text: str
) -> None:
    (bundle.rootfs / "program").write_text(content)
    (bundle.rootfs / "program").chmod(0o755)
    bundle.process["args"] = ["/program"]
    name = engine.create(bundle)
    failed = engine.call("start", name)
    if FOREIGN:  # runc 1.1 has let go of init by then
        return
    failed.fails("/program", text)
    engine.until(name, "stopped")
    engine.call("delete", name).ok()


def test_no_arguments(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = []
    bundle.write()
    engine.call("create", "--bundle", str(bundle.path), engine.new_id()).fails("args")


def test_the_program_is_found_in_the_container_s_path(engine: Engine, bundle: Bundle) -> None:
    (bundle.rootfs / "only").mkdir()
    (bundle.rootfs / "only/here").write_text("#!/bin/sh\necho found $0 $1\n")
    (bundle.rootfs / "only/here").chmod(0o755)
    bundle.process["env"] = ["PATH=/nosuch:/only:/bin"]
    bundle.process["args"] = ["here", "argument"]
    assert engine.front(bundle).ok().out == "found /only/here argument\n"


@ours
def test_the_cpus_of_the_caller_are_not_the_containers(engine: Engine, bundle: Bundle) -> None:
    mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        pytest.skip("takes two CPUs")
    everywhere = fields(engine, bundle, "Cpus_allowed_list")
    os.sched_setaffinity(0, {min(mine)})
    try:
        assert fields(engine, bundle, "Cpus_allowed_list") == everywhere
        name = engine.start(bundle)
        done = engine.call("exec", name, "/bin/cat", "/proc/self/status").ok()
    finally:
        os.sched_setaffinity(0, mine)
    assert f"Cpus_allowed_list:\t{everywhere['Cpus_allowed_list']}\n" in done.out
