"""containerd's CRI plugin: volumes, and the effects of a pod's security context."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from conformance.engines import host, images

if TYPE_CHECKING:
    from conformance.engines.cri import Container, Cri

_SYS_ADMIN = 1 << 21
# What a container has by default; all of containerd's.
_DEFAULT = 0x00000000A80425FB


def security(**fields: Any) -> dict[str, Any]:
    """A LinuxContainerConfig with a security context."""
    return {"security_context": fields}


def status_of(script: str) -> str:
    """A script that prints fields of its own status."""
    return f"grep -E '^({script}):' /proc/self/status | cut -f2"


def test_volumes(cri: Cri, name: str, shared: str) -> None:
    """One that can be written to, one that cannot, a part of one, and a single file."""
    os.mkdir(f"{shared}/sub")
    mounts = [
        {"container_path": "/mnt", "host_path": shared},
        {"container_path": "/read", "host_path": shared, "readonly": True},
        {"container_path": "/deep/er/sub", "host_path": f"{shared}/sub"},
        {"container_path": "/etc/one", "host_path": f"{shared}/file"},
    ]
    script = (
        "echo new > /mnt/new; cat /read/new; touch /read/x || echo no; touch /deep/er/sub/it; cat /etc/one"
    )
    container = cri.pod(name).script("main", script, mounts=mounts)
    assert container.ended() == 0
    assert [text for stream, _, text in container.logs() if stream == "stdout"] == [
        "new",
        "no",
        "from the host",
    ]
    assert os.listdir(f"{shared}/sub") == ["it"]


@pytest.mark.parametrize(
    ("propagation", "arrives", "leaves"),
    [
        ("PROPAGATION_PRIVATE", False, False),
        ("PROPAGATION_HOST_TO_CONTAINER", True, False),
        ("PROPAGATION_BIDIRECTIONAL", True, True),
    ],
    ids=["None", "HostToContainer", "Bidirectional"],
)
def test_propagation(
    cri: Cri, name: str, shared: str, *, propagation: str, arrives: bool, leaves: bool
) -> None:
    """Mounts made later on the host arrive, and those made in the container leave, as the volume says."""
    for part in ("in", "out"):
        os.mkdir(f"{shared}/{part}")
    host.succeed(["mount", "--bind", "--make-shared", shared, shared])
    try:
        mounts = [{"container_path": "/mnt", "host_path": shared, "propagation": propagation}]
        linux = security(privileged=True)
        container = cri.pod(name, security_context={"privileged": True}).sleeper(mounts=mounts, linux=linux)
        host.succeed(["mount", "-t", "tmpfs", "tmpfs", f"{shared}/in"])
        with open(f"{shared}/in/seen", "w", encoding="utf-8"):
            pass
        assert container.execute("ls", "/mnt/in").out == ("seen\n" if arrives else "")
        container.shell("mount -t tmpfs tmpfs /mnt/out; touch /mnt/out/seen")
        assert os.listdir(f"{shared}/out") == (["seen"] if leaves else [])
        container.stop()
    finally:
        for point in (part for part in host.mounts_below(shared)):
            host.succeed(["umount", point])


@pytest.mark.parametrize("deep", [False, True], ids=["readOnly", "recursiveReadOnly"])
def test_read_only(cri: Cri, name: str, shared: str, *, deep: bool) -> None:
    """A read-only volume's own mounts can be written to, unless it is recursively read-only."""
    if deep and not cri.version_is(2, 0):
        pytest.skip(f"containerd {cri.version}: recursively read-only volumes came with 2.0")
    os.mkdir(f"{shared}/deep")
    host.succeed(["mount", "-t", "tmpfs", "tmpfs", f"{shared}/deep"])
    try:
        mount = {"container_path": "/mnt", "host_path": shared, "readonly": True, "recursive_read_only": deep}
        container = cri.pod(name).sleeper(mounts=[mount])
        assert container.execute("touch", "/mnt/x").code == 1
        assert container.execute("touch", "/mnt/deep/x").code == (1 if deep else 0)
        container.stop()
    finally:
        host.succeed(["umount", f"{shared}/deep"])


def test_image_as_a_volume(cri: Cri, name: str) -> None:
    """An image's files are a read-only volume."""
    if not cri.version_is(2, 1):
        pytest.skip(f"containerd {cri.version}: images as volumes came with 2.1")
    mounts = [{"container_path": "/mnt", "image": {"image": images.NAME}, "readonly": True}]
    container = cri.pod(name).sleeper(mounts=mounts)
    assert container.shell("cat /mnt/seed/file") == "from the image\n"
    assert container.execute("touch", "/mnt/x").code == 1


def test_device(cri: Cri, name: str) -> None:
    """A device plugin's device is there under its name, with its permissions."""
    device = {"container_path": "/dev/mine", "host_path": "/dev/full", "permissions": "rw"}
    container = cri.pod(name).sleeper(devices=[device])
    assert container.shell("stat -c '%t %T' /dev/mine; head -c 3 /dev/mine | wc -c") == "1 7\n3\n"


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ({"run_as_user": {"value": 1000}}, ["1000", "1000", "1000 2000"]),
        ({"run_as_username": "app"}, ["1000", "1000", "1000 2000"]),
        ({"run_as_user": {"value": 4321}, "run_as_group": {"value": 5432}}, ["4321", "5432", "5432"]),
        ({"run_as_user": {"value": 4321}, "supplemental_groups": [77, 88]}, ["4321", "0", "0 77 88"]),
    ],
    ids=["number", "name", "group", "further-groups"],
)
def test_user(cri: Cri, name: str, who: dict[str, Any], expected: list[str]) -> None:
    """`runAsUser`, `runAsGroup`, `supplementalGroups`: of the first process and of a further one."""
    script = "id -u; id -g; echo $(id -G | tr ' ' '\\n' | sort -n)"
    container = cri.pod(name).script("main", f"{script}; sleep 1000", linux=security(**who))
    host.wait_until("it has printed", lambda: len(container.logs()) == 3)
    assert [text for _, _, text in container.logs()] == expected
    assert container.shell(script).splitlines() == expected


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, _DEFAULT),
        ({"drop_capabilities": ["ALL"]}, 0),
        ({"drop_capabilities": ["ALL"], "add_capabilities": ["CHOWN"]}, 1),
        ({"add_capabilities": ["SYS_ADMIN"]}, _DEFAULT | _SYS_ADMIN),
    ],
    ids=["default", "none", "one", "one-more"],
)
def test_capabilities(cri: Cri, name: str, capabilities: dict[str, list[str]], expected: int) -> None:
    """Added and dropped, of the first process and of a further one."""
    container = cri.pod(name).sleeper(linux=security(capabilities=capabilities))
    with open(f"/proc/{container.pid()}/status", encoding="ascii") as file:
        (first,) = [line.split()[1] for line in file if line.startswith("CapEff")]
    further = container.shell(status_of("CapEff"))
    assert (int(first, 16), int(further, 16)) == (expected, expected)


def test_no_new_privileges(cri: Cri, name: str) -> None:
    """`allowPrivilegeEscalation: false`."""
    container = cri.pod(name).sleeper(linux=security(no_new_privs=True))
    assert container.shell(status_of("NoNewPrivs")) == "1\n"


def test_privileged(cri: Cri, name: str) -> None:
    """All that the host can give: capabilities, devices, a /sys that can be written to; no filter."""
    pod = cri.pod(name, security_context={"privileged": True})
    container = pod.sleeper(linux=security(privileged=True))
    with open("/proc/self/status", encoding="ascii") as file:
        (own,) = [line.split()[1] for line in file if line.startswith("CapEff")]
    assert container.shell(status_of("CapEff|Seccomp")).split() == [own, "0"]
    # containerd 1.6 tells devices by their directory in /sys; this one is everywhere.
    assert container.execute("test", "-c", "/dev/kmsg").code == 0


def test_sys_of_a_privileged_container(cri: Cri, name: str) -> None:
    """Its /sys can be written to, though that of the pod's first process, on the same file system, cannot."""
    pod = cri.pod(name, security_context={"privileged": True})
    container = pod.sleeper(linux=security(privileged=True))
    (options,) = [
        line.split()[3] for line in container.shell("cat /proc/mounts").splitlines() if " /sys " in line
    ]
    assert options.split(",")[0] == "rw"


def test_read_only_root(cri: Cri, name: str, shared: str) -> None:
    """`readOnlyRootFilesystem`: the root cannot be written to, its volumes can."""
    mounts = [{"container_path": "/mnt", "host_path": shared}]
    container = cri.pod(name).sleeper(mounts=mounts, linux=security(readonly_rootfs=True))
    assert container.execute("touch", "/x").code == 1
    assert container.execute("touch", "/mnt/x", "/dev/shm/x").code == 0


def test_protected_paths(cri: Cri, name: str) -> None:
    """`procMount: Default`: the kubelet's lists of what is hidden and what is read-only are applied."""
    linux = security(masked_paths=["/proc/timer_list", "/proc/acpi"], readonly_paths=["/proc/sys"])
    container = cri.pod(name).sleeper(linux=linux)
    assert container.execute("cat", "/proc/timer_list").out == ""
    assert container.execute("sh", "-c", "echo 1 > /proc/sys/vm/drop_caches").code != 0
    unmasked = cri.pod(f"{name}-2").sleeper(linux=security(masked_paths=[], readonly_paths=[]))
    assert unmasked.shell("grep -c -E ' /proc/[a-z]' /proc/mounts || :") == "0\n"


@pytest.mark.parametrize(
    ("profile", "filtered"), [("RuntimeDefault", True), ("Unconfined", False)], ids=["default", "unconfined"]
)
def test_seccomp(cri: Cri, name: str, profile: str, *, filtered: bool) -> None:
    """The engine's own profile refuses to enter a namespace; without one it is a question of capabilities."""
    linux = security(seccomp={"profile_type": profile}, capabilities={"add_capabilities": ["SYS_CHROOT"]})
    container = cri.pod(name, security_context={"seccomp": {"profile_type": profile}}).sleeper(linux=linux)
    assert container.shell(status_of("Seccomp")) == ("2\n" if filtered else "0\n")
    refused = container.execute("unshare", "-U", "true")
    assert (refused.code == 0) is not filtered, refused


def test_seccomp_of_the_host(cri: Cri, name: str, shared: str) -> None:
    """`Localhost`: a profile from a file, for the first process and for a further one."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42}],
    }
    with open(f"{shared}/profile.json", "w", encoding="utf-8") as file:
        json.dump(profile, file)
    seccomp = {"profile_type": "Localhost", "localhost_ref": f"{shared}/profile.json"}
    container = cri.pod(name).script("main", "mkdir /first; sleep 1000", linux=security(seccomp=seccomp))
    host.wait_until("the first has tried", container.logs)
    assert "No message of desired type" in container.logs()[0][2]  # errno 42
    assert "No message of desired type" in container.execute("mkdir", "/further").err


def test_seccomp_profile_that_is_missing(cri: Cri, name: str, shared: str) -> None:
    """No container comes without the filter that was asked for."""
    seccomp = {"profile_type": "Localhost", "localhost_ref": f"{shared}/missing.json"}
    with pytest.raises(grpc.RpcError) as refused:
        cri.pod(name).sleeper(linux=security(seccomp=seccomp))
    assert "missing.json" in refused.value.details()


def test_apparmor(cri: Cri, name: str) -> None:
    """The engine's default profile confines a container; a profile that is not loaded is an error."""
    wrong = security(apparmor={"profile_type": "Localhost", "localhost_ref": "localhost/no-such-profile"})
    with pytest.raises(grpc.RpcError) as refused:
        cri.pod(name).sleeper(linux=wrong)
    if not os.path.exists("/sys/kernel/security/apparmor"):
        assert "apparmor is not supported" in refused.value.details().lower()
        pytest.skip("no AppArmor in this kernel")
    assert "no-such-profile" in refused.value.details()
    linux = security(apparmor={"profile_type": "RuntimeDefault"})
    container = cri.pod(f"{name}-2").sleeper(linux=linux)
    assert "cri-containerd.apparmor.d" in container.shell("cat /proc/self/attr/current")


IDS = [{"host_id": 700000, "container_id": 0, "length": 65536}]


def test_user_namespace(cri: Cri, name: str) -> None:
    """`hostUsers: false`: root of a pod is nobody on the host, and owns the image's files all the same."""
    if not cri.version_is(1, 7):
        pytest.skip(f"containerd {cri.version}: pods in user namespaces came with 1.7")
    container = in_user_namespace(cri, name)
    assert container.shell("cat /proc/self/uid_map").split() == ["0", "700000", "65536"]
    assert os.stat(f"/proc/{container.pid()}").st_uid == 700000
    assert container.shell("touch /new; stat -c '%u %g' /bin/busybox /new") == "0 0\n0 0\n"


def test_volume_of_a_user_namespace(cri: Cri, name: str, shared: str) -> None:
    """Its owners are mapped, both ways."""
    if not cri.version_is(2, 0):
        pytest.skip(f"containerd {cri.version}: mappings of a volume's owners came with 2.0")
    mount = {"container_path": "/mnt", "host_path": shared, "uidMappings": IDS, "gidMappings": IDS}
    container = in_user_namespace(cri, name, mounts=[mount])
    assert container.shell("touch /mnt/new; stat -c %u /mnt/file /mnt/new") == "0\n0\n"
    assert os.stat(f"{shared}/new").st_uid == 0


def in_user_namespace(cri: Cri, name: str, **config: Any) -> Container:
    """A container that sleeps in a pod with a user namespace."""
    namespaces = {"pid": "CONTAINER", "userns_options": {"mode": "POD", "uids": IDS, "gids": IDS}}
    pod = cri.pod(name, namespaces=namespaces)
    return pod.sleeper(linux=security(namespace_options=namespaces), **config)
