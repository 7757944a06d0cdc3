"""containerd's CRI plugin, called as by a kubelet: pods, their containers and their life."""

from __future__ import annotations

import concurrent.futures
import os
import signal
from typing import TYPE_CHECKING

import grpc
import pytest

from conformance.engines import host
from conformance.engines.client import POLITE
from conformance.engines.cri import SYSTEMD_HANDLER

if TYPE_CHECKING:
    from conformance.engines.cri import Cri

# How many pods are started at once; a hundred take a minute or two of two processors.
MANY = int(os.environ.get("PYRUNC_PODS", "20"))
READY, NOT_READY = range(2)


def test_sandbox(cri: Cri, name: str) -> None:
    """A sandbox has an address and the handler that was asked for; stopped, it is no longer ready."""
    pod = cri.pod(name)
    status = pod.status()
    assert (status.state, status.runtime_handler, status.network.ip) == (READY, "pyrunc", "10.88.0.2")
    pod.stop()
    assert pod.status().state == NOT_READY
    cri.api("RemovePodSandbox", pod_sandbox_id=pod.id)
    assert cri.pods() == []


def test_container_of_a_pod(cri: Cri, name: str) -> None:
    """Host name, name servers, environment and working directory are as the pod and the container say."""
    script = (
        "hostname; cat /etc/hostname; cat /etc/resolv.conf; echo $GREETING; pwd; ip -o -4 address show eth0"
    )
    container = cri.pod(name).script(
        "main", script, envs=[{"key": "GREETING", "value": "hello"}], working_dir="/tmp"
    )
    lines = container.output().splitlines()
    assert lines[:6] == [name[:63], name[:63], "search example.org", "nameserver 10.88.0.1", "hello", "/tmp"]
    assert "10.88.0.2" in lines[6]


@pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
def test_namespace_of_the_host(cri: Cri, name: str, kind: str) -> None:
    """`hostNetwork`, `hostPID` and `hostIPC`: that namespace is the host's, and the other two are not."""
    kinds = {"network": "net", "pid": "pid", "ipc": "ipc"}
    namespaces = {"network": "POD", "pid": "CONTAINER", "ipc": "POD", kind: "NODE"}
    pod = cri.pod(name, namespaces=namespaces)
    container = pod.sleeper(linux={"security_context": {"namespace_options": namespaces}})
    pid = container.pid()
    same = {word for word, file in kinds.items() if os.readlink(f"/proc/{pid}/ns/{file}") == own(file)}
    assert same == {kind}
    assert container.execute("true").code == 0


def own(file: str) -> str:
    """A namespace of this process."""
    return os.readlink(f"/proc/self/ns/{file}")


def test_sysctls(cri: Cri, name: str) -> None:
    """Those of a pod's namespaces are set."""
    pod = cri.pod(name, sysctls={"kernel.shm_rmid_forced": "1", "net.ipv4.ip_forward": "1"})
    container = pod.sleeper()
    files = ("/proc/sys/kernel/shm_rmid_forced", "/proc/sys/net/ipv4/ip_forward")
    assert container.execute("cat", *files).out == "1\n1\n"


def test_init_containers(cri: Cri, name: str, shared: str) -> None:
    """One after the other; what they leave in a volume is there for the main one; a failed one runs again."""
    pod = cri.pod(name)
    volume = [{"container_path": "/mnt", "host_path": shared}]
    assert pod.script("first", "echo one >> /mnt/order", mounts=volume).ended() == 0
    for attempt, code in enumerate((3, 0)):
        again = "echo two >> /mnt/order; test -e /mnt/tried && exit 0; touch /mnt/tried; exit 3"
        metadata = {"name": "second", "attempt": attempt}
        assert pod.script("second", again, mounts=volume, metadata=metadata).ended() == code
    assert pod.script("main", "cat /mnt/order", mounts=volume).output() == "one\ntwo\ntwo\n"


def test_sidecar(cri: Cri, name: str) -> None:
    """A sidecar is there before and after the main container; both have one network and one shared memory."""
    pod = cri.pod(name)
    sidecar = pod.script("sidecar", "echo for all > /dev/shm/note; exec httpd -f -p 8080 -h /seed")
    host.wait_until(
        "it listens", lambda: ":1F90 " in sidecar.execute("cat", "/proc/net/tcp6", "/proc/net/tcp").out
    )
    main = pod.script("main", "cat /dev/shm/note; wget -q -O - http://127.0.0.1:8080/file; hostname")
    assert main.output() == f"for all\nfrom the image\n{name[:63]}\n"
    assert sidecar.running()


def test_shared_process_namespace(cri: Cri, name: str) -> None:
    """`shareProcessNamespace`: each sees the others, and the sandbox's first process is the first."""
    namespaces = {"pid": "POD"}
    pod = cri.pod(name, namespaces=namespaces)
    linux = {"security_context": {"namespace_options": namespaces}}
    one = pod.start("one", "sleep", "1111", linux=linux)
    two = pod.start("two", "sleep", "2222", linux=linux)
    for container in (one, two):
        seen = container.shell("ps -o args")
        assert "sleep 1111" in seen
        assert "sleep 2222" in seen
    assert "sleep 1000" in two.shell("tr '\\0' ' ' < /proc/1/cmdline")
    two.shell("kill -9 $(ps -o pid,args | awk '/[s]leep 1111/ { print $1 }')")
    assert one.ended() == 137
    assert two.running()


def test_ephemeral_container(cri: Cri, name: str) -> None:
    """`kubectl debug --target`: a further container in the process namespace of another one."""
    pod = cri.pod(name)
    main = pod.start("main", "sleep", "1111")
    target = {"pid": "TARGET", "target_id": main.id}
    debug = pod.script(
        "debug", "tr '\\0' ' ' < /proc/1/cmdline", linux={"security_context": {"namespace_options": target}}
    )
    assert debug.output() == "sleep 1111 \n"
    assert main.running()


def test_stop_with_a_grace(cri: Cri, name: str) -> None:
    """SIGTERM comes first; what handles it ends with its own status."""
    container = cri.pod(name).script("main", POLITE)
    container.wait_for_log("ready")
    container.stop(30)
    assert (container.status().exit_code, container.status().reason) == (5, "Error")


def test_stop_when_the_grace_is_over(cri: Cri, name: str) -> None:
    """SIGKILL ends what does not heed SIGTERM."""
    container = cri.pod(name).sleeper()  # the first process of a pid namespace has no default action
    container.stop(1)
    assert (container.status().exit_code, container.status().reason) == (137, "Error")


def test_stop_of_a_pod(cri: Cri, name: str) -> None:
    """Its containers end with it, of which one is stopped already and one was never started."""
    pod = cri.pod(name)
    running = pod.sleeper("running")
    ended = pod.script("ended", "exit 3")
    pod.create("created", "sleep", "1000")
    assert ended.ended() == 3
    pid = running.pid()
    pod.stop()
    assert running.status().exit_code == 137
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize(
    ("program", "phrase"),
    [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such/program", "no such file or directory"),
        ("/bin/not-executable", "permission denied"),
    ],
    ids=["not-in-path", "no-file", "not-executable"],
)
def test_error_of_a_start(cri: Cri, name: str, program: str, phrase: str) -> None:
    """It is what `kubectl describe` shows, with the reason and the status that Kubernetes has for it."""
    container = cri.pod(name).create("main", program)
    with pytest.raises(grpc.RpcError) as refused:
        container.start()
    assert phrase in refused.value.details()
    status = container.status()
    assert (status.exit_code, status.reason) == (128, "StartError")
    assert phrase in status.message


def test_error_of_a_mount(cri: Cri, name: str, shared: str) -> None:
    """A volume that cannot be mounted is named, and nothing of the container stays."""
    mounts = [{"container_path": "/bin/busybox", "host_path": shared}]
    container = cri.pod(name).create("main", "sleep", "1000", mounts=mounts)
    with pytest.raises(grpc.RpcError) as refused:
        container.start()
    assert "not a directory" in refused.value.details()


def test_termination_message(cri: Cri, name: str, shared: str) -> None:
    """A file of the kubelet's at /dev/termination-log takes a container's last words."""
    mounts = [{"container_path": "/dev/termination-log", "host_path": f"{shared}/file"}]
    assert (
        cri.pod(name).script("main", "echo words > /dev/termination-log; exit 7", mounts=mounts).ended() == 7
    )
    with open(f"{shared}/file", encoding="utf-8") as file:
        assert file.read() == "words\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_pods_outlive_the_daemon(cri: Cri, name: str, number: signal.Signals) -> None:
    """A containerd that is started again finds what goes on, and what ended without it."""
    pod = cri.pod(name)
    running, ended = pod.sleeper("running"), pod.sleeper("ended")
    pids = running.pid(), ended.pid()
    cri.stop_daemon(number)
    os.kill(pids[1], signal.SIGKILL)
    assert host.command_line(pids[0]) == "sleep 1000"
    cri.start_daemon()
    for container in (running, ended):
        container.api = cri.api
    assert [item.state for item in cri.pods()] == [READY]
    assert running.pid() == pids[0]
    assert running.running()
    assert ended.ended() in {137, 255}  # containerd 1.7 says 255 of what it did not see end
    assert running.shell("echo there") == "there\n"
    assert pod.script("further", "echo new").output() == "new\n"


def test_death_of_the_shim(cri: Cri, name: str) -> None:
    """When a pod's shim is killed, its containers are taken away, and the pod is not ready."""
    if cri.version_is(2, 0):
        pytest.skip(f"containerd {cri.version} leaves what a dead shim watched, whatever the runtime")
    pod = cri.pod(name)
    container = pod.sleeper()
    pid = container.pid()
    (shim,) = [number for number, line in host.processes_with(cri.socket).items() if f"-id {pod.id} " in line]
    os.kill(shim, signal.SIGKILL)
    host.wait_until("the container is gone", lambda: not os.path.exists(f"/proc/{pid}"), seconds=20)
    host.wait_until("it is not ready", lambda: pod.status().state == NOT_READY, seconds=20)
    assert container.ended() != 0


@pytest.mark.timeout(600)
def test_many_at_once(cri: Cri, name: str) -> None:
    """Pods are started without waiting for one another, each with a container, and all of them run."""

    def one(number: int) -> str:
        container = cri.pod(f"{name}-{number}").script(
            "main", f"echo {number}; exec sleep 1000", log_path=f"{number}"
        )
        return container.shell("hostname")

    with concurrent.futures.ThreadPoolExecutor(MANY) as pool:
        names = list(pool.map(one, range(MANY)))
    assert names == [f"{name}-{number}\n" for number in range(MANY)]
    assert [item.state for item in cri.pods()] == [READY] * MANY
    with concurrent.futures.ThreadPoolExecutor(MANY) as pool:
        list(pool.map(lambda item: cri.api("StopPodSandbox", pod_sandbox_id=item.id), cri.pods()))
    assert {item.state for item in cri.pods()} == {NOT_READY}


def test_systemd_manager(cri: Cri, name: str) -> None:
    """`SystemdCgroup = true` asks for scopes of systemd's; where it does not run, the error says so."""
    if os.path.isdir("/run/systemd/system"):
        container = cri.pod(name, SYSTEMD_HANDLER, cgroup_parent="system.slice").sleeper()
        with open(f"/proc/{container.pid()}/cgroup", encoding="utf-8") as file:
            assert f"/system.slice/cri-containerd-{container.id}.scope" in file.read()
        return
    with pytest.raises(grpc.RpcError) as refused:
        cri.pod(name, SYSTEMD_HANDLER, cgroup_parent="system.slice")
    assert "systemd" in refused.value.details()
