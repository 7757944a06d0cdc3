"""containerd's CRI plugin: exec, attach, logs, port-forward, and the resources that containers use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import grpc
import pytest

from conformance.engines import host
from conformance.engines.streams import STDERR, STDIN, STDOUT, Stream

if TYPE_CHECKING:
    from conformance.engines.cri import Cri

MEBIBYTE = 1 << 20


def test_exec(cri: Cri, name: str) -> None:
    """A further process has the container's environment, both streams come apart, the status is its own."""
    container = cri.pod(name).sleeper(envs=[{"key": "GREETING", "value": "hello"}])
    answer = container.execute("sh", "-c", "echo $GREETING; echo wrong >&2; exit 3")
    assert answer == (3, "hello\n", "wrong\n")


def test_exec_of_a_missing_program(cri: Cri, name: str) -> None:
    """The error comes through the runtime's log, and the container stays."""
    container = cri.pod(name).sleeper()
    with pytest.raises(grpc.RpcError) as refused:
        container.execute("no-such-program")
    assert "executable file not found in $PATH" in refused.value.details()
    assert container.shell("echo there") == "there\n"


def test_exec_probe(cri: Cri, name: str) -> None:
    """A probe: success, failure, and one that hangs, which is killed when its time is over."""
    container = cri.pod(name).sleeper()
    assert container.execute("test", "-d", "/tmp", seconds=10).code == 0
    assert container.execute("test", "-d", "/missing", seconds=10).code == 1
    with pytest.raises(grpc.RpcError) as late:
        container.execute("sleep", "2222", seconds=1)
    assert "timeout 1s exceeded" in late.value.details()
    host.wait_until("the probe is gone", lambda: "sleep 2222" not in container.shell("ps -o args"))
    assert container.running()


def test_many_probes(cri: Cri, name: str) -> None:
    """Probes come again and again, and leave nothing in the container."""
    container = cri.pod(name).sleeper()
    assert [container.execute("true", seconds=10).code for _ in range(20)] == [0] * 20
    assert container.execute("ps", "-o", "args").out.splitlines()[1:] == ["sleep 1000", "ps -o args"]


def test_exec_streaming(cri: Cri, name: str) -> None:
    """`kubectl exec -i`: standard input arrives, both streams come back, and the status at the end."""
    container = cri.pod(name).sleeper()
    command = ["sh", "-c", "read line; echo got $line; echo wrong >&2; exit 4"]
    asked = {"container_id": container.id, "cmd": command, "stdin": True, "stdout": True, "stderr": True}
    with Stream(cri.api("Exec", **asked).url) as stream:
        stream.send(STDIN, "words\n")
        assert stream.exit_status() == 4
        assert (stream.text(STDOUT), stream.text(STDERR)) == ("got words\n", "wrong\n")


def test_exec_of_much(cri: Cri, name: str) -> None:
    """`kubectl cp` is an exec of tar: all of a megabyte arrives, though the process ends at once."""
    container = cri.pod(name).sleeper()
    command = ["head", "-c", str(MEBIBYTE), "/dev/zero"]
    url = cri.api("Exec", container_id=container.id, cmd=command, stdout=True, stderr=True).url
    with Stream(url) as stream:
        assert stream.exit_status() == 0
        assert stream.received[STDOUT] == bytes(MEBIBYTE)


def test_exec_on_a_terminal(cri: Cri, name: str) -> None:
    """`kubectl exec -it`: a terminal of the container's, whose size follows the client's."""
    container = cri.pod(name).sleeper()
    url = cri.api("Exec", container_id=container.id, cmd=["sh"], tty=True, stdin=True, stdout=True).url
    with Stream(url) as stream:
        stream.until(STDOUT, "# ")
        stream.resize(33, 101)
        stream.send(STDIN, "until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; tty; exit 5\n")
        stream.until(STDOUT, "/dev/pts/")
        assert stream.exit_status() == 5


def test_attach(cri: Cri, name: str) -> None:
    """`kubectl attach -i`: the streams of the first process; it goes on when the client leaves."""
    script = "while read line; do echo got $line; done; echo end; exit 6"
    container = cri.pod(name).script("main", script, stdin=True)
    for number in range(2):
        url = cri.api("Attach", container_id=container.id, stdin=True, stdout=True, stderr=True).url
        with Stream(url) as stream:
            stream.send(STDIN, f"{number}\n")
            stream.until(STDOUT, f"got {number}\n")
    assert container.running()
    assert [text for _, _, text in container.logs()] == ["got 0", "got 1"]


def test_attach_once(cri: Cri, name: str) -> None:
    """`stdinOnce`: the end of the first client's input is the end of the process's."""
    script = "while read line; do echo got $line; done; exit 6"
    container = cri.pod(name).script("main", script, stdin=True, stdin_once=True)
    with Stream(
        cri.api("Attach", container_id=container.id, stdin=True, stdout=True, stderr=True).url
    ) as stream:
        stream.send(STDIN, "words\n")
        stream.until(STDOUT, "got words\n")
    assert container.ended() == 6


def test_attach_to_a_terminal(cri: Cri, name: str) -> None:
    """`kubectl attach -it`: the terminal of the first process."""
    container = cri.pod(name).start("main", "sh", stdin=True, tty=True)
    url = cri.api("Attach", container_id=container.id, stdin=True, stdout=True, tty=True).url
    with Stream(url) as stream:
        stream.resize(33, 101)
        stream.send(STDIN, "until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; tty; exit 7\n")
        stream.until(STDOUT, "/dev/pts/0")
    assert container.ended() == 7


def test_logs(cri: Cri, name: str) -> None:
    """Each line with its stream; one that is longer than the limit in parts; the last without an end."""
    script = "echo out; echo err >&2; head -c 20000 /dev/zero | tr '\\0' x; echo; printf unended"
    container = cri.pod(name).script("main", script)
    assert container.ended() == 0
    lines = container.logs()
    assert {("stdout", "F", "out"), ("stderr", "F", "err")} <= set(lines)
    long = [(whole, len(text)) for _, whole, text in lines if "x" in text]
    assert long == [("P", 16384), ("F", 20000 - 16384)]
    assert lines[-1][2] == "unended"


def test_rotation_of_a_log(cri: Cri, name: str) -> None:
    """The kubelet moves the log away and has it opened anew, while the container prints."""
    script = "while :; do echo line; sleep 0.05; done"
    container = cri.pod(name).script("main", script)
    container.wait_for_log("line")
    log = f"{cri.logs}/main.log"
    os.rename(log, f"{log}.1")
    cri.api("ReopenContainerLog", container_id=container.id)
    container.wait_for_log("line")


@pytest.mark.parametrize("network", ["POD", "NODE"])
def test_port_forward(cri: Cri, name: str, network: str) -> None:
    """`kubectl port-forward`: what listens on the pod's loopback is reached, also in the host's network."""
    namespaces = {"network": network, "pid": "CONTAINER"}
    pod = cri.pod(name, namespaces=namespaces)
    port = 18080 + os.getpid() % 10000
    serve = ["httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", "/seed"]
    container = pod.start("main", *serve, linux={"security_context": {"namespace_options": namespaces}})
    line = f"0100007F:{port:04X} "
    host.wait_until("it listens", lambda: line in container.execute("cat", "/proc/net/tcp").out)
    with Stream(cri.api("PortForward", pod_sandbox_id=pod.id, port=[port]).url) as stream:
        data = 0  # the channel of the first port; its first message is the port's number
        stream.send(data, "GET /file HTTP/1.0\r\n\r\n")
        stream.until(data, "from the image\n")
        assert stream.received[data].startswith(port.to_bytes(2, "little") + b"HTTP/1.")


def test_stats(cri: Cri, name: str) -> None:
    """`kubectl top`: what a container and its pod use, from the cgroups that the runtime made."""
    pod = cri.pod(name)
    container = pod.script("main", "head -c 8m /dev/zero > /dev/shm/file; sleep 1000")
    host.wait_until(
        "it fills", lambda: "8388608" in container.execute("stat", "-c", "%s", "/dev/shm/file").out
    )
    stats = cri.api("ContainerStats", container_id=container.id).stats
    assert stats.memory.working_set_bytes.value >= 8 * MEBIBYTE
    assert stats.cpu.usage_core_nano_seconds.value > 0
    linux = cri.api("PodSandboxStats", pod_sandbox_id=pod.id).stats.linux
    assert linux.memory.working_set_bytes.value >= 8 * MEBIBYTE
    assert [item.memory.working_set_bytes.value >= 8 * MEBIBYTE for item in linux.containers] == [True]


def test_limits(cri: Cri, name: str) -> None:
    """`resources.limits` and `requests` are in the container's cgroup."""
    resources = {
        "memory_limit_in_bytes": 64 * MEBIBYTE,
        "cpu_period": 100000,
        "cpu_quota": 50000,
        "cpuset_cpus": "0",
        "oom_score_adj": 900,
    }
    container = cri.pod(name).sleeper(linux={"resources": resources})
    assert limit(cri, container.id, "memory.limit_in_bytes", "memory.max") == str(64 * MEBIBYTE)
    assert limit(cri, container.id, "cpu.cfs_quota_us", "cpu.max") == "50000"
    assert limit(cri, container.id, "cpuset.cpus") == "0"
    assert container.shell("cat /proc/1/oom_score_adj") == "900\n"


def limit(cri: Cri, container: str, *names: str) -> str:
    """The first word of a file in a container's cgroup."""
    return host.setting(cri.session.tag, container, *names)


def test_update_of_resources(cri: Cri, name: str) -> None:
    """Limits are changed in place, upwards and downwards, while the container runs."""
    container = cri.pod(name).sleeper(linux={"resources": {"memory_limit_in_bytes": 64 * MEBIBYTE}})
    for memory, quota in ((128 * MEBIBYTE, 25000), (32 * MEBIBYTE, 75000)):
        resources = {"memory_limit_in_bytes": memory, "cpu_period": 100000, "cpu_quota": quota}
        cri.api("UpdateContainerResources", container_id=container.id, linux=resources)
        assert limit(cri, container.id, "memory.limit_in_bytes", "memory.max") == str(memory)
        assert limit(cri, container.id, "cpu.cfs_quota_us", "cpu.max") == str(quota)
    assert container.running()


def test_update_that_cannot_be(cri: Cri, name: str) -> None:
    """What the kernel refuses is an error that comes through, and the container goes on."""
    container = cri.pod(name).sleeper()
    with pytest.raises(grpc.RpcError) as refused:
        cri.api("UpdateContainerResources", container_id=container.id, linux={"cpuset_cpus": "4000"})
    assert "cpuset.cpus" in refused.value.details()
    assert container.running()


def test_update_of_what_is_created(cri: Cri, name: str) -> None:
    """Limits of a container that has not been started are those it starts with."""
    container = cri.pod(name).create("main", "sleep", "1000")
    resources = {"memory_limit_in_bytes": 64 * MEBIBYTE}
    cri.api("UpdateContainerResources", container_id=container.id, linux=resources)
    container.start()
    assert limit(cri, container.id, "memory.limit_in_bytes", "memory.max") == str(64 * MEBIBYTE)


def test_out_of_memory(cri: Cri, name: str) -> None:
    """What eats more than it may is `OOMKilled`, and the others of its pod are not."""
    pod = cri.pod(name)
    other = pod.sleeper("other")
    resources = {"memory_limit_in_bytes": 16 * MEBIBYTE}
    container = pod.start("main", "tail", "/dev/zero", linux={"resources": resources})
    assert container.ended() == 137
    host.wait_until("the reason is known", lambda: container.status().reason == "OOMKilled")
    assert other.running()


def test_out_of_memory_of_a_child(cri: Cri, name: str) -> None:
    """The first process outlives a child of its that was killed; the container goes on."""
    resources = {"memory_limit_in_bytes": 16 * MEBIBYTE}
    script = "tail /dev/zero; echo child $?; exec sleep 1000"
    container = cri.pod(name).script("main", script, linux={"resources": resources})
    container.wait_for_log("child 137")
    assert container.running()
