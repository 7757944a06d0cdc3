"""The plan as text: complete, in the order of the effects, flags by name."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.plan import build, mount_options, process, show, steps
from pyrunc.plan.facts import Request
from pyrunc.plan.mount_steps import AttachRoot, Mount
from tests.support.specs import engine, small, with_linux, with_process
from tests.unit.plan.test_build import REQUEST, plan


def texts(made: steps.Plan) -> list[str]:
    return [row.text for row in show.rows(made)]


def line(made: steps.Plan, kind: type[steps.Step]) -> str:
    (found,) = [row.text for row in show.rows(made) if isinstance(row.step, kind)]
    return found


def mounted(*options: str, **entry: Any) -> str:
    mount = {"destination": "/d", "source": "/s", "type": "bind", "options": ["rbind", *options], **entry}
    return line(plan(small(mounts=[mount])), Mount)


def test_every_step_of_the_plan_is_shown_once() -> None:
    made = plan(engine())
    rows = show.rows(made)
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    wanted = [made.namespaces, *made.parent, *made.child, *made.start]
    assert sorted(id(row.step) for row in rows) == sorted(id(step) for step in wanted)
    assert all(row.text for row in rows)


def test_every_kind_of_step_has_words() -> None:
    kinds: list[type[steps.Step]] = [steps.Step]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert set(show.DESCRIBE) == {*kinds} - {steps.Step, Mount}


def test_the_order_is_that_of_the_effects() -> None:
    config = with_process(oomScoreAdj=5)
    config["hooks"] = {"createRuntime": [{"path": "/h"}], "startContainer": [{"path": "/i"}]}
    rows = show.rows(plan(config))
    order = [(row.by, type(row.step).__name__) for row in rows]
    assert order[:2] == [("parent", "Cgroup"), ("parent", "Namespaces")]
    waiting = order.index(("child", "WaitForHooks"))
    assert order[waiting + 1] == ("parent", "Hooks")
    assert order[-3:] == [("child", "Program"), ("parent", "OomScore"), ("start", "Hooks")]


def test_a_bind() -> None:
    assert mounted() == "rbind /s on /d (rslave by default)"
    assert mounted("ro", "nosuid", "dev", "noatime", "rprivate") == (
        "rbind /s on /d (ro nosuid dev noatime rprivate nothing else)"
    )
    assert (
        mounted("rro", "rstrictatime", "rsuid", "rshared")
        == "rbind /s on /d (rro rsuid rstrictatime rshared)"
    )


def test_an_id_mapped_bind() -> None:
    ids = [{"containerID": 0, "hostID": 1000, "size": 5}]
    text = mounted("rprivate", "ridmap", uidMappings=ids, gidMappings=ids)
    assert text == "rbind /s on /d (rprivate ridmap ids 0:1000:5 0:1000:5)"


def test_ids_of_a_namespace_that_exists() -> None:
    config = with_linux(also=({"type": "user", "path": "/proc/7/ns/user"},))
    config["mounts"] = [{"destination": "/d", "source": "/s", "options": ["bind", "idmap", "rprivate"]}]
    assert line(plan(config), Mount) == "bind /s on /d (rprivate idmap ids of /proc/7/ns/user)"


def test_what_lies_below_a_shared_bind_and_what_a_lock_keeps() -> None:
    assert mounted("shared") == "rbind /s on /d (shared below it slave)"
    config = with_linux(also=("user",))
    config["mounts"] = [{"destination": "/d", "source": "/s", "options": ["rbind", "ro", "rprivate"]}]
    text = line(plan(config), Mount)
    assert text == "rbind /s on /d (ro rprivate nothing else but what is locked)"


def test_remounts() -> None:
    assert mounted("remount", "ro") == "change the mount on /d (ro remount nothing else)"
    text = mounted(options=["remount", "size=1m"])
    assert text == "change the file system on /d (remount size=1m)"


def test_layers() -> None:
    words = ["lowerdir=/l:/b/rootfs/usr", "upperdir=/u", "workdir=/w"]
    text = mounted(type="overlay", source="overlay", options=words)
    assert text == "mount overlay on /d (lowerdir+=/l lowerdir+=/usr of the root upperdir=/u workdir=/w)"
    made = plan(small(), Request(id="c1", bundle="/b", overlay="/state/c1/layer"))
    assert line(made, AttachRoot) == (
        "root file system /b/rootfs (rslave), under a writable layer in /state/c1/layer (volatile)"
    )
    assert line(plan(small()), AttachRoot) == "root file system /b/rootfs (rslave)"
    for lowers, said in ((("/l",), "1 shared layer"), (("/l", "/m"), "2 shared layers")):
        made = plan(small(), Request(id="c1", bundle="/b", overlay="/state/c1/layer", lowers=lowers))
        assert f" (rslave) over {said}, under a writable layer in " in line(made, AttachRoot)
    maps = [{"containerID": 0, "hostID": 7, "size": 3}]
    mapped = with_linux(also=("user",), uidMappings=maps, gidMappings=maps)
    made = plan(mapped, Request(id="c1", bundle="/b", overlay="/state/c1/layer"))
    assert " (rslave) seen through ids 0:7:3, under a writable layer" in line(made, AttachRoot)


def test_a_label_that_is_no_word_for_the_file_system() -> None:
    config = with_linux(mountLabel="u:r:t:s0")
    config["mounts"] = [{"destination": "/q", "type": "mqueue"}]
    assert line(plan(config), Mount) == "mount mqueue on /q (label u:r:t:s0)"


def test_a_new_file_system() -> None:
    entry = {"destination": "/t", "type": "tmpfs", "source": "mine", "options": ["ro", "size=1m", "sync"]}
    text = line(plan(small(mounts=[entry])), Mount)
    assert text == "mount tmpfs mine on /t (ro sync size=1m), read-only at the end"


def test_a_cgroup_is_shown_line_by_line() -> None:
    made = plan(with_linux(resources={"pids": {"limit": 5}}, cgroupsPath="/x"))
    assert "unified: pids.max = 5" in line(made, steps.Cgroup).splitlines()


def test_capabilities_by_name() -> None:
    sets = {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}
    assert "capabilities: kill" in line(plan(with_process(capabilities=sets)), steps.Identity)
    assert "capabilities: none" in line(plan(with_process(capabilities={})), steps.Identity)
    assert "capabilities: unchanged" in line(plan(small()), steps.Identity)
    every = {key: list(process.CAPABILITIES) for key in sets}
    assert "capabilities: all" in line(plan(with_process(capabilities=every)), steps.Identity)


def test_an_identity_with_everything() -> None:
    user = {"uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 0o77}
    text = line(plan(with_process(user=user, noNewPrivileges=True)), steps.Identity)
    assert text == "become uid=5 gid=6 groups=7,8 umask=0077 capabilities: unchanged no_new_privs"


def test_exec_has_the_umask_of_the_first_process() -> None:
    command = {"cwd": "/", "user": {"uid": 0, "gid": 0}}
    made = build.build_exec(small(), command, REQUEST, 0)  # type: ignore[arg-type]
    assert line(made, steps.Identity) == "become uid=0 gid=0 umask=0022 capabilities: unchanged"
    assert line(made, steps.Namespaces) == "clone a process into the container's namespaces"


def test_devices_made_and_bound() -> None:
    devices = [
        {"path": "/dev/p", "type": "p"},
        {"path": "/dev/x", "type": "c", "major": 1, "minor": 3},
        {"path": "/dev/y", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600, "uid": 5, "gid": 6},
    ]
    config = with_linux(devices=devices)
    assert "make /dev/p (fifo, 0666)" in texts(plan(config))
    assert "make /dev/y (b 7:0, 0600, uid=5 gid=6)" in texts(plan(config))
    assert "bind the host's /dev/x (c 1:3)" in texts(plan(config, in_user_namespace=True))


def test_namespaces() -> None:
    config = with_linux(
        without=("network",),
        also=({"type": "network", "path": "/n"}, "time"),
        timeOffsets={"boottime": {"secs": 3, "nanosecs": 5}},
    )
    text = line(plan(config), steps.Namespaces)
    assert text.startswith("clone init into new namespaces: ipc uts pid time cgroup mount; join network /n; ")
    assert text.endswith("boottime offset 3.000000005 s")
    alone = plan({**small(), "linux": {"namespaces": []}})
    assert line(alone, steps.Namespaces) == "clone init"


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (steps.Provide(what="data", volume=True), "volume data: use it"),
        (
            steps.Provide(what="data", volume=True, make=True, fill="/var/data", owner=(5, 6)),
            "volume data: make it, fill it with the image's /var/data, give it to uid=5 gid=6",
        ),
        (
            steps.Provide(what="ANONYMOUS-1", volume=True, make=True, anonymous=True),
            "anonymous volume ANONYMOUS-1: make it (its name is drawn when it is made)",
        ),
        (
            steps.Provide(what="/srv/x", make=True, label="u:r:t:s0", layer="/state/0"),
            "source /srv/x: make the directory, label it u:r:t:s0, make a layer over it, /state/0/upper",
        ),
        (steps.IdMaps(uids=((0, 1, 2),), gids=((3, 4, 5),)), "map ids: users 0:1:2, groups 3:4:5"),
        (steps.Rlimit(name="RLIMIT_CORE", number=4, soft=1, hard=2), "RLIMIT_CORE 1 (at most 2)"),
        (steps.NetDevice(host="eth0", name="lan"), "move network device eth0 into the container as lan"),
        (steps.Join(kind="ipc", path="/i"), "join ipc namespace /i"),
        (steps.EnterCgroupNamespace(new=True), "join the cgroups and make a cgroup namespace there"),
        (steps.Terminal(width=0, height=0, console=True), "open a terminal and put it on /dev/console"),
        (steps.ContainerHooks(hooks=({"path": "/a"},)), "run createContainer hooks: /a"),
        (steps.EnterRoot(method="chroot"), "enter the root file system (chroot)"),
        (
            steps.RootPropagation(flag=mount_options.SHARED, recursive=True),
            "make the root mount rshared",
        ),
        (steps.Domainname(name="d"), "domainname d"),
        (steps.Sysctl(path="net/core/x", value="1"), "sysctl net.core.x = 1"),
        (steps.Sysctl(path="net/ipv4/conf/eth0.1/x", value="1"), "sysctl net/ipv4/conf/eth0.1/x = 1"),
        (
            steps.Scheduler(policy=1, flags=0, nice=0, priority=7, runtime=0, deadline=0, period=0),
            "schedule with SCHED_FIFO, nice 0, priority 7",
        ),
        (
            steps.Scheduler(policy=6, flags=1, nice=0, priority=0, runtime=10, deadline=20, period=30),
            "schedule with SCHED_DEADLINE, nice 0, priority 0, 10 of 30 ns by 20 ns, flags 0x1",
        ),
        (steps.IoPriority(value=2 << 13 | 4), "I/O priority class 2, level 4"),
        (steps.AllCpus(), "run on all CPUs the cgroup allows"),
        (steps.Affinity(cpus=(0, 2)), "run on CPUs 0,2"),
        (steps.Personality(domain=8), "personality LINUX32"),
        (steps.MemoryPolicy(mode=2, nodes=(0, 1)), "memory policy 0x2 on nodes 0,1"),
        (steps.LsmLabel(lsm="selinux", label="l"), "selinux label l at execve"),
        (steps.LoopbackUp(), "bring lo up"),
        (steps.ReadonlyPath(path="/p"), "make /p read-only"),
        (steps.MaskedPath(path="/p"), "mask /p"),
        (steps.WaitForHooks(), "wait for the parent's hooks"),
        (steps.ReadonlyRoot(), "make the root file system read-only"),
    ],
)
def test_words(step: steps.Step, text: str) -> None:
    assert show.describe(step) == text


def test_a_filter() -> None:
    section = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
    }
    text = line(plan(with_linux(seccomp=section)), steps.Seccomp)
    assert text.startswith("install the seccomp filter: ")
    assert "1 rules for 1 system calls" in text


def test_the_table() -> None:
    made = plan(with_linux(cgroupsPath="/x", maskedPaths=["/proc/kcore"]))
    lines = show.table(show.rows(made)).splitlines()
    assert lines[0].split() == ["STEP", "BY", "WHAT", "WHY"]
    (mask,) = [found for found in lines if " mask /" in found]
    assert mask.split()[1:] == ["child", "mask", "/proc/kcore", "/linux/maskedPaths/0"]
    column = lines[0].index("WHY")
    assert mask[column:] == "/linux/maskedPaths/0"


def test_the_document_has_every_field() -> None:
    made = plan(small(mounts=[{"destination": "/t", "type": "tmpfs"}]))
    found = show.document(made, show.rows(made))
    assert found["rootfs"] == "/b/rootfs"
    listed: Any = found["steps"]
    (mount,) = [step for step in listed if step["kind"] == "Mount"]
    assert mount["by"] == "child"
    assert mount["pointer"] == "/mounts/0"
    assert mount["fields"]["destination"] == "/t"
    assert mount["fields"]["options"]["attr_set"] == 0


MOUNT_FIELDS = (
    *("kind", "index", "destination", "source", "fstype", "options", "data", "make", "own_set", "own_clear"),
    *("implied_clear", "deep_set", "deep_clear", "must_mask", "must_be", "locked", "no_symlink"),
    *("propagation", "below", "expected", "after", "again", "readonly_last", "copy_up", "id_maps"),
    *("id_space", "deep_ids", "subpath", "early", "layers", "layer_fds", "label", "spelled", "instead"),
)


@pytest.mark.parametrize(
    ("entry", "without", "fields"),
    [
        ({"source": "/s", "options": ["rbind", "subpath=a"]}, (), {"kind": "bind", "subpath": "a"}),
        (
            {"source": "/b/rootfs/s", "options": ["bind", "ro"]},
            (),
            {"kind": "inner-bind", "source": "/s", "own_set": 1, "must_mask": 1, "make": "source"},
        ),
        (
            {"type": "cgroup"},
            ("cgroup",),
            {"kind": "late-bind", "fstype": "bind", "source": "/sys/fs/cgroup", "make": "dir"},
        ),
        ({"type": "tmpfs", "options": ["ro", "mode=7"]}, (), {"kind": "new", "data": ["mode=7"]}),
        (
            {"type": "overlay", "options": ["lowerdir=/l"]},
            (),
            {"kind": "new", "layers": [["lowerdir+", "/l", False]], "early": True, "layer_fds": True},
        ),
        ({"options": ["remount", "size=1"]}, (), {"kind": "remount", "data": ["size=1"], "layers": []}),
        ({"options": ["remount", "bind"]}, (), {"kind": "remount", "data": [], "subpath": ""}),
    ],
)
def test_all_kinds_of_mounts_have_the_same_fields(
    entry: dict[str, Any], without: tuple[str, ...], fields: dict[str, Any]
) -> None:
    config = with_linux(without=without)
    config["mounts"] = [{"destination": "/d", **entry}]
    listed: Any = show.document(plan(config), show.rows(plan(config)))["steps"]
    (found,) = [step["fields"] for step in listed if step["kind"] == "Mount"]
    assert tuple(found) == MOUNT_FIELDS
    assert {name: found[name] for name in fields} == fields


def test_a_plan_can_be_walked_and_printed() -> None:
    made = show.for_programs(plan(small()))
    assert [row.step for row in show.rows(made)] == list(made)
    assert str(made) + "\n" == show.table(show.rows(made))
    assert [step.describe() for step in made] == [row.text for row in show.rows(made)]


def test_on_a_terminal_it_fits() -> None:
    rows = show.rows(plan(engine()))
    for width in (60, 80, 140):
        lines = show.table(rows, width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert [line.split()[0] for line in lines[1:] if line[:4].strip()] == [
            str(row.number) for row in rows
        ]
    timed = show.table(rows, ("AT ms", "CHILD us"), [("1.00", "200")] * len(rows), width=80)
    assert timed.splitlines()[0].split() == ["STEP", "BY", "AT", "ms", "CHILD", "us", "WHAT", "WHY"]
    assert max(map(len, timed.splitlines())) <= 80


def test_in_colours() -> None:
    rows = show.rows(plan(small()))
    painted = show.table(rows, paint=lambda text, style: f"<{style}>{text}" if style else text)
    bare = show.table(rows)
    assert painted.startswith("<title>STEP")
    assert "<note>parent" in painted
    assert painted.count("\n") == bare.count("\n")
