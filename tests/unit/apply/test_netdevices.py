"""Network devices are moved between namespaces of the test's own; those of the host are never changed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyrunc.apply import netdevices
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags
from pyrunc.plan.steps import NetDevice
from tests.support.forked import in_child

IP = shutil.which("ip")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces and devices, which takes root"),
    pytest.mark.skipif(IP is None, reason="makes the devices with ip (package iproute2)"),
]


def ip(*words: str, inside: int = 0) -> str:
    enter = ["nsenter", "-t", str(inside), "-n"] if inside else []
    done = subprocess.run([*enter, "ip", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lists(*words: str, inside: int = 0) -> Any:
    return json.loads(ip("-json", *words, inside=inside))


@contextlib.contextmanager
def container() -> Iterator[int]:
    """Give the pid of a process in a network namespace of its own."""
    command = ["unshare", "--net", "sh", "-c", "echo; exec sleep 100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def in_namespace(test: Callable[[int], object]) -> object:
    """Run a test in a network namespace that stands for the host's. The test gets the pid of a container."""

    def run() -> object:
        _linux.unshare(flags.CLONE_NEWNET)
        with container() as pid:
            return test(pid)

    return in_child(run)


def move(pid: int, name: str = "", host: str = "host0") -> str:
    """Move a device and return "", or what its failure says."""
    step = NetDevice(host=host, name=name or host, pointer=f"/linux/netDevices/{host}")
    try:
        netdevices.move(step, pid)
    except Failure as problem:
        return problem.text()
    return ""


def addresses(name: str, inside: int) -> list[str]:
    (found,) = lists("address", "show", "dev", name, inside=inside)
    return sorted(
        f"{each['local']}/{each['prefixlen']}" for each in found["addr_info"] if each["scope"] == "global"
    )


def test_a_device_moves_with_its_attributes_and_is_up() -> None:
    def test(pid: int) -> object:
        ip("link", "add", "host0", "mtu", "1789", "address", "00:11:22:33:44:55", "type", "veth")
        said = move(pid)
        (found,) = lists("link", "show", "dev", "host0", inside=pid)
        there = [link["ifname"] for link in lists("link")]
        return [said, found["mtu"], found["address"], "UP" in found["flags"], "host0" in there]

    assert in_namespace(test) == ["", 1789, "00:11:22:33:44:55", True, False]


def test_devices_beside_it_may_have_any_name() -> None:
    """The owner of a namespace may give its devices names that are not text."""

    def test(pid: int) -> object:
        for place in (0, pid):
            ip("link", "add", b"\xff\xfe\x1b".decode("utf-8", "surrogateescape"), "type", "ifb", inside=place)
        ip("link", "add", "host0", "type", "ifb")
        return [move(pid), "none not found" if "none not found" in (said := move(pid, host="none")) else said]

    said = in_namespace(test)
    assert said == ["", "none not found"]


def test_permanent_global_addresses_come_along_and_no_others() -> None:
    def test(pid: int) -> object:
        ip("link", "add", "host0", "type", "ifb")
        ip("link", "set", "host0", "up")
        ip("address", "add", "169.254.169.77/32", "dev", "host0")
        ip("address", "add", "10.1.2.3/24", "broadcast", "10.1.2.200", "metric", "5", "dev", "host0")
        ip("address", "add", "10.1.2.4/24", "dev", "host0")
        ip("address", "add", "192.0.2.1", "peer", "192.0.2.2", "dev", "host0")
        ip("address", "add", "2001:db8::5/64", "nodad", "dev", "host0")
        ip("address", "add", "127.0.0.33", "dev", "host0")
        ip("address", "add", "fe80::5/64", "dev", "host0")
        ip("address", "add", "10.9.9.9/24", "dev", "host0", "valid_lft", "100", "preferred_lft", "100")
        ip("link", "add", "other", "type", "ifb")
        ip("address", "add", "10.7.7.7/24", "dev", "other")
        said = move(pid, "eth0")
        (found,) = lists("address", "show", "dev", "eth0", inside=pid)
        by_name = {each["local"]: each for each in found["addr_info"]}
        return [
            said,
            addresses("eth0", pid),
            by_name["10.1.2.3"]["broadcast"],
            by_name["10.1.2.3"]["metric"],
            by_name["10.1.2.3"]["label"],
            by_name["192.0.2.1"]["address"],
            by_name["2001:db8::5"].get("nodad"),
            [each["local"] for each in found["addr_info"] if each["local"] in ("127.0.0.33", "10.9.9.9")],
        ]

    assert in_namespace(test) == [
        "",
        ["10.1.2.3/24", "10.1.2.4/24", "169.254.169.77/32", "192.0.2.1/32", "2001:db8::5/64"],
        "10.1.2.200",
        5,
        "eth0",
        "192.0.2.2",
        True,
        [],
    ]


def test_addresses_of_a_device_that_is_down() -> None:
    def test(pid: int) -> object:
        ip("link", "add", "host0", "type", "ifb")
        ip("address", "add", "10.1.2.3/24", "dev", "host0")
        return [move(pid), addresses("host0", pid)]

    assert in_namespace(test) == ["", ["10.1.2.3/24"]]


def test_many_addresses() -> None:
    """There are more addresses than one answer of the kernel can hold."""

    def test(pid: int) -> object:
        ip("link", "add", "host0", "type", "ifb")
        batch = "".join(f"address add 10.{n // 250}.{n % 250}.1/24 dev host0\n" for n in range(600))
        subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
        return [move(pid), len(addresses("host0", pid))]

    assert in_namespace(test) == ["", 600]


def test_a_template_gets_a_number_from_the_kernel() -> None:
    def test(pid: int) -> object:
        said = []
        for name in ("host0", "host1"):
            ip("link", "add", name, "type", "ifb")
            ip("address", "add", "10.1.2.3/24", "dev", name)
            said.append(move(pid, "eth%d", name))
        return [said, [addresses(name, pid) for name in ("eth0", "eth1")]]

    assert in_namespace(test) == [["", ""], [["10.1.2.3/24"], ["10.1.2.3/24"]]]


def test_a_new_name_that_is_taken_on_the_host_is_no_obstacle() -> None:
    def test(pid: int) -> object:
        ip("link", "add", "host0", "type", "ifb")
        ip("link", "add", "eth0", "type", "ifb")
        return [move(pid, "eth0"), [link["ifname"] for link in lists("link", inside=pid)]]

    assert in_namespace(test) == ["", ["lo", "eth0"]]


def test_a_name_that_is_taken_in_the_container_leaves_the_device_where_it_is() -> None:
    def test(pid: int) -> object:
        ip("link", "add", "host0", "type", "ifb")
        ip("link", "add", "eth0", "type", "ifb", inside=pid)
        return [move(pid, "eth0"), [link["ifname"] for link in lists("link")]]

    said = (
        "/linux/netDevices/host0: move network device host0: the container's network namespace has a eth0: "
        'file exists; give it another name, or one with a number found by the kernel, as "eth%d"'
    )
    assert in_namespace(test) == [said, ["lo", "host0"]]


def test_there_is_no_such_device() -> None:
    assert in_namespace(lambda pid: move(pid, "eth0", "nic7")) == (
        "/linux/netDevices/nic7: network device nic7 not found in the runtime's network namespace: "
        "no such device"
    )


def test_a_device_that_cannot_be_moved() -> None:
    def test(pid: int) -> object:
        ip("link", "add", "host0", "type", "bridge")
        return move(pid, "eth0")

    said = str(in_namespace(test))
    assert said.startswith(
        "/linux/netDevices/host0: move network device host0 into the container as eth0: invalid argument"
    )


def test_an_init_that_has_ended_speaks_for_itself() -> None:
    def test() -> object:
        with subprocess.Popen(["true"]) as ended:
            os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
            return move(ended.pid)

    assert in_child(test) == ""


def test_loopback() -> None:
    def test(pid: int) -> object:
        (before,) = lists("link", "show", "dev", "lo", inside=pid)
        netdevices.loopback_up(pid)
        (after,) = lists("link", "show", "dev", "lo", inside=pid)
        return ["UP" in before["flags"], "UP" in after["flags"]]

    assert in_namespace(test) == [False, True]


def test_we_stay_in_our_own_namespace() -> None:
    def test(pid: int) -> object:
        before = os.readlink("/proc/self/ns/net")
        ip("link", "add", "host0", "type", "ifb")
        said = move(pid)
        descriptors = os.listdir("/proc/self/fd")
        move(pid, host="none")
        return [said, os.readlink("/proc/self/ns/net") == before, os.listdir("/proc/self/fd") == descriptors]

    assert in_namespace(test) == ["", True, True]


def test_a_name_that_is_no_text_is_in_nobody_s_way() -> None:
    """Another container in the same namespace may have given its devices any bytes as names."""

    def test(pid: int) -> object:
        ip("link", "add", "host0", "type", "ifb")
        ip("link", "add", "there0", "type", "ifb", inside=pid)
        words = ["nsenter", "-t", str(pid), "-n", "ip", "link", "set", "there0", "name"]
        subprocess.run([*words, b"caf\xe9"], check=True)
        taken = move(pid, "caf\udce9")
        return [taken, move(pid)]

    found = in_namespace(test)
    assert isinstance(found, list)
    assert "caf" in found[0]
    assert "exist" in found[0]
    assert found[1] == ""
