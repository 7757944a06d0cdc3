"""Messages that users of other runtimes did not understand, and pyrunc's message in each case.

Each case is from a public issue tracker: what was wrong, and the words that a user needs to correct it. A
message is one line (a report on a config.json is one line for each problem) and has no traceback.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containers import Bundle
    from tests.support.engine import Engine, Result


def said(engine: Engine, bundle: Bundle, *texts: str) -> Result:
    """Run the bundle: it must fail with these texts in one line."""
    return engine.front(bundle).fails(*texts)


def test_a_missing_source_names_itself_and_its_mount(engine: Engine, bundle: Bundle) -> None:
    bundle.mount("/data", "/nowhere/srv", "rbind")
    at = len(bundle.config["mounts"]) - 1
    said(
        engine,
        bundle,
        f"error mounting /mounts/{at}: /nowhere/srv on /data: bind source /nowhere/srv does not exist",
    )


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"#!/bin/bash\n", "/entry is there, but its interpreter /bin/bash is not"),
        (b"#!/bin/sh\r\necho\r\n", "lines that end as on Windows (CRLF)"),
        (b"echo hello\n", "/entry is neither a program nor a script with a #! line"),
        (
            b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(44),
            "/entry is a program for aarch64",
        ),
    ],
)
def test_a_program_that_cannot_be_executed(
    engine: Engine, bundle: Bundle, tmp_path: Path, content: bytes, hint: str
) -> None:
    """The words that engines know and the reason go to people and to the log that engines read."""
    (bundle.rootfs / "entry").write_bytes(content)
    (bundle.rootfs / "entry").chmod(0o755)
    bundle.process["args"] = ["/entry"]
    bundle.write()
    log = tmp_path / "log"
    engine.call("--log", str(log), "run", "--bundle", str(bundle.path), engine.new_id()).fails(
        "run failed: exec /entry: ", hint
    )
    assert hint in log.read_text()


def test_bind_without_bind(engine: Engine, bundle: Bundle) -> None:
    bundle.mount("/data", "/tmp", "ro")
    at = len(bundle.config["mounts"]) - 1
    said(engine, bundle, f"/mounts/{at}", "type bind needs the option bind or rbind")


def test_a_file_on_a_directory_names_both_kinds(engine: Engine, bundle: Bundle) -> None:
    bundle.mount("/tmp", "/etc/hostname", "bind")
    said(engine, bundle, "/etc/hostname on /tmp: the source is a file, the target a directory")


def test_a_mistyped_option_gets_a_guess(engine: Engine, bundle: Bundle) -> None:
    bundle.mount("/data", "/tmp", "rbind", "rslaev")
    at = len(bundle.config["mounts"]) - 1
    said(engine, bundle, f"/mounts/{at}/options/1", '"rslaev" is not a mount option, did you mean "rslave"?')


def test_an_option_the_file_system_refuses_is_named(engine: Engine, bundle: Bundle) -> None:
    bundle.mount("/data", "tmpfs", "sizee=4k", kind="tmpfs")
    said(engine, bundle, "tmpfs on /data", 'option "sizee=4k"', "Unknown parameter 'sizee'")


def test_a_memory_limit_too_low_to_start_in(engine: Engine, bundle: Bundle) -> None:
    bundle.linux["resources"] = {"memory": {"limit": 4096}}
    said(engine, bundle, "/linux/resources/memory/limit", "the limit is 4096 bytes")


def test_a_dangling_symlink_as_target_is_no_failure(engine: Engine, bundle: Bundle) -> None:
    (bundle.rootfs / "etc/localtime").symlink_to("/usr/share/zoneinfo/UTC")
    bundle.mount("/etc/localtime", "/etc/hostname", "bind", "ro")
    done = engine.front(bundle, "cat /usr/share/zoneinfo/UTC").ok()
    assert done.out.strip() == os.uname().nodename or done.out


def test_a_symlink_as_parent_of_a_target_is_no_failure(engine: Engine, bundle: Bundle) -> None:
    (bundle.rootfs / "real").mkdir()
    (bundle.rootfs / "link").symlink_to("/real")
    bundle.mount("/link/conf", "tmpfs", "rw", kind="tmpfs")
    assert " /real/conf tmpfs" in engine.front(bundle, "cat /proc/mounts").ok().out


def test_a_root_that_is_a_symlink_and_a_root_that_is_not_there(engine: Engine, bundle: Bundle) -> None:
    (bundle.path / "link").symlink_to("rootfs")
    bundle.config["root"]["path"] = "link"
    said(engine, bundle, "invalid rootfs", "link is a symlink to rootfs")
    bundle.config["root"]["path"] = "nowhere"
    result = said(engine, bundle, "invalid rootfs", "nowhere does not exist; name the directory that holds")
    assert "symlink" not in result.err


def test_a_hook_is_named_with_its_output(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\necho because >&2\nexit 3\n")
    hook.chmod(0o755)
    bundle.config["hooks"] = {"createRuntime": [{"path": str(hook)}]}
    said(engine, bundle, "createRuntime hook #0", str(hook), "exit status 3", "because")


def test_a_terminal_that_would_outlive_the_command(engine: Engine, bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    bundle.write()
    engine.call("create", "--bundle", str(bundle.path), engine.new_id()).fails(
        "cannot allocate tty if runc will detach without setting console socket",
        "set /process/terminal to false, or pass --console-socket PATH",
    )


def test_a_limit_that_cannot_be_raised(engine: Engine, bundle: Bundle) -> None:
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 5}]
    said(
        engine, bundle, "/process/rlimits/0/soft", "soft limit 10 of RLIMIT_NOFILE is above the hard limit 5"
    )


def test_a_user_without_mapping(engine: Engine, bundle: Bundle) -> None:
    bundle.user_namespace()
    bundle.process["user"]["uid"] = 70000
    said(engine, bundle, "uid 70000 has no mapping in /linux/uidMappings (mapped: 0..65535)")


def test_a_group_option_without_mapping(engine: Engine, bundle: Bundle) -> None:
    bundle.user_namespace()
    bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 1}]
    bundle.mount("/data", "tmpfs", "gid=5", kind="tmpfs")
    said(engine, bundle, "tmpfs on /data", 'option "gid=5"', "Invalid gid '5'")


def test_all_errors_of_a_configuration_at_once(engine: Engine, bundle: Bundle) -> None:
    bundle.config["hostname"] = 5
    bundle.process["cwd"] = "relative"
    bundle.linux["namespaces"].append({"type": "neptune"})
    bundle.write()
    result = engine.front(bundle).fails("/hostname", "/process/cwd", "/linux/namespaces", "neptune")
    assert sum("config.json:" in line for line in result.err.splitlines()) == 3, result


def test_a_program_that_is_not_there(engine: Engine, bundle: Bundle) -> None:
    for program, text in (
        ("nosuch", 'exec: "nosuch": executable file not found in $PATH; PATH is /'),
        ("sh -c ls", "not found in $PATH; each word of a command is an argument of its own"),
        ("/nosuch", 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        ("/tmp", 'exec: "/tmp": is a directory: permission denied'),
        (
            "/etc/passwd",
            'exec: "/etc/passwd": permission denied; /etc/passwd has no x in its mode (0644); chmod +x',
        ),
    ):
        bundle.process["args"] = [program]
        said(engine, bundle, text)


def test_a_working_directory_that_cannot_be_made(engine: Engine, bundle: Bundle) -> None:
    (bundle.rootfs / "srv").mkdir()
    bundle.mount("/srv", bundle.rootfs / "srv", "rbind", "ro")
    bundle.process["cwd"] = "/srv/nowhere"
    said(engine, bundle, 'cwd ("/srv/nowhere")', "it is not there, and cannot be made in a read-only file")


def test_a_container_that_is_not_there_is_looked_for_somewhere(engine: Engine) -> None:
    """An ordinary user looks in another place than root."""
    engine.call("state", "nobody").fails(f"container does not exist; there is none in {engine.root}")


def test_something_mounted_inside_proc(engine: Engine, bundle: Bundle) -> None:
    bundle.mount("/proc/self/attr", "/tmp", "bind")
    said(engine, bundle, "/proc/self/attr", "inside /proc", "/proc/meminfo")


def test_a_namespace_of_another_kind(engine: Engine, bundle: Bundle) -> None:
    for space in bundle.linux["namespaces"]:
        if space["type"] == "network":
            space["path"] = "/proc/self/ns/uts"
    said(engine, bundle, "/linux/namespaces", "/proc/self/ns/uts is not a network namespace")


def test_a_label_without_its_lsm(engine: Engine, bundle: Bundle) -> None:
    if os.path.exists("/sys/kernel/security/apparmor"):
        pytest.skip("AppArmor is in force here: the message is about hosts without")
    bundle.process["apparmorProfile"] = "container-default"
    said(engine, bundle, "AppArmor label 'container-default'", "is AppArmor enabled on this host")
