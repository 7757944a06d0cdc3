"""A cgroup tree that can be written to: CVE-2023-25809, crun 1.29.1, CVE-2022-0492 (release_agent).

If a new sysfs or cgroup mount is not possible, the host's is bound instead, and "ro" must then be true for
everything that is visible, not only for the top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.containers import Bundle, Runtime

# ">>" would open for writing; a directory is a cgroup made. Nothing is written into a file.
ATTACK = """
for d in $(find /sys/fs/cgroup -type d 2>/dev/null | head -40); do
    mkdir $d/attack 2>/dev/null && echo made $d
done
for f in $(find /sys -name release_agent -o -name notify_on_release -o -name cgroup.procs | head -40); do
    (: >> $f) 2>/dev/null && echo opened $f
done
echo end
"""
CGROUP = {
    "destination": "/sys/fs/cgroup",
    "type": "cgroup",
    "source": "cgroup",
    "options": ["ro", "nosuid", "noexec"],
}


@pytest.mark.parametrize("user_namespace", [False, True])
@pytest.mark.parametrize("cgroup_namespace", [False, True])
@pytest.mark.parametrize("own_network", [False, True])
def test_read_only_is_read_only_all_the_way_down(
    bundle: Bundle, runtime: Runtime, *, user_namespace: bool, cgroup_namespace: bool, own_network: bool
) -> None:
    if user_namespace:
        bundle.user_namespace()
    if cgroup_namespace:
        bundle.linux["namespaces"].append({"type": "cgroup"})
    if not own_network:
        bundle.linux["namespaces"] = [
            space for space in bundle.linux["namespaces"] if space["type"] != "network"
        ]
        if user_namespace:
            bundle.without_mount("/sys")
            bundle.mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro", kind="sysfs")
    bundle.config["mounts"].append(CGROUP)
    shown = runtime.run(bundle, ATTACK)
    assert shown.stdout == "end\n"


def test_without_the_mount_there_is_nothing_to_write(bundle: Bundle, runtime: Runtime) -> None:
    assert runtime.output(bundle, ATTACK) == "end\n"


def test_a_cgroup_hierarchy_cannot_be_mounted_inside(bundle: Bundle, runtime: Runtime) -> None:
    tries = "for i in memory rdma devices; do mount -t cgroup -o $i none /tmp/c && echo mounted; done"
    script = f"mkdir /tmp/c; {tries}"
    shown = runtime.run(bundle, f"({script}) 2>/dev/null; unshare -UrmC true 2>/dev/null; echo end")
    assert shown.stdout == "end\n"
