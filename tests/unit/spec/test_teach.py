"""What `pyrunc explain` says about a property: each has a text, and an example that is accepted."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.plan import mount_options
from pyrunc.spec import problems, teach
from pyrunc.spec.accept import accept
from tests.support.specs import small

PAGES = {page.pointer: page for page in teach._pages()}
# Items of lists of plain texts and maps of such: the list says it all.
PLAIN = ("/N", "/NAME")
# Linux looks at none of these.
UNUSED = ("/process/commandLine", "/process/user/username", "/linux/resources/memory/kernel")


def written(pointer: str, value: Any) -> Any:
    """Return the smallest JSON value that has something at a pointer."""
    for part in reversed(pointer.strip("/").split("/")):
        value = [value] if part == "N" else {part: value}
        if part == "timeOffsets":  # only some names may stand there
            (inner,) = value[part].values()
            value = {part: {"monotonic": inner}}
    return value


def test_all_of_the_specification_is_there() -> None:
    assert len(PAGES) > 180
    for pointer in (
        "",
        "/mounts/N/options",
        "/linux/resources/rdma/NAME/hcaHandles",
        "/hooks/poststop/N/path",
    ):
        assert pointer in PAGES


@pytest.mark.parametrize("pointer", sorted(PAGES))
def test_every_property_has_words(pointer: str) -> None:
    page = PAGES[pointer]
    assert teach.page("/".join("3" if part == "N" else part for part in pointer.split("/"))) == page
    if pointer and not (pointer.endswith(PLAIN) and page.kind == "a text"):
        assert page.text.endswith((".", "?")), pointer
        assert all(text for name, text in page.parts), pointer


@pytest.mark.parametrize("pointer", [each for each in sorted(PAGES) if each])
def test_every_example_is_right(pointer: str) -> None:
    page = PAGES[pointer]
    if page.example is None:
        assert pointer in UNUSED or pointer.endswith(PLAIN), f"{pointer} has no example"
        return
    file, name = ("config.json", "Config")
    partial = written(pointer, page.example)
    errors = problems._validator(file, name).iter_errors({"ociVersion": "1", **partial})
    wrong = [error for error in errors if error.validator != "required"]
    assert wrong == []
    top = pointer.split("/")[1]
    if pointer == f"/{top}" and top != "linux":
        assert accept(small(**{top: page.example}))


@pytest.mark.parametrize("word", mount_options.OPTIONS)
def test_every_mount_option_has_words(word: str) -> None:
    said = teach.option(word)
    assert said
    assert "None" not in said


def test_every_mount_option_is_among_the_values() -> None:
    listed = " ".join(PAGES["/mounts/N/options"].values).split()
    assert set(mount_options.OPTIONS) <= set(listed)


@pytest.mark.parametrize(
    ("pointer", "values"),
    [
        ("/linux/namespaces/0/type", ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")),
        ("/process/oomScoreAdj", ("-1000 to 1000",)),
        ("/process/scheduler/policy", ("SCHED_OTHER", "SCHED_FIFO")),
        ("/process/scheduler/flags", ("SCHED_FLAG_RESET_ON_FORK",)),
        ("/linux/resources/devices/0/type", ("a", "c", "b")),
        ("/process/user/additionalGids", ("0 to 4294967294",)),
        ("/process/capabilities/bounding", ("CAP_CHOWN",)),
        ("/annotations", ("org.criu.config", "org.pyrunc.layers", "org.pyrunc.volumes")),
        ("/hostname", ()),
    ],
)
def test_values(pointer: str, values: tuple[str, ...]) -> None:
    page = teach.page(pointer)
    assert page is not None
    assert page.values[: len(values)] == values
    assert bool(page.values) == bool(values)


def test_a_page() -> None:
    page = teach.page("/mounts/3/uidMappings")
    assert page is not None
    assert teach.document(page) == {
        "pointer": "/mounts/N/uidMappings",
        "kind": "a list of objects",
        "description": page.text,
        "required": False,
        "values": [],
        "pyrunc": "The mount itself is mapped; the files of the source keep their owners.",
        "since": "5.12",
        "example": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "properties": {},
    }
    assert teach.example(page) == '"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}]'
    item = teach.page("/mounts/0/uidMappings/-")
    assert item is not None
    assert teach.example(item).startswith("{")
    assert [name for name, _ in item.parts] == ["containerID", "hostID", "size"]
    path = teach.page("/root/path")
    assert path is not None
    assert path.needed
    kinds = {PAGES[pointer].kind for pointer in ("/annotations", "/linux/netDevices", "/root/readonly")}
    assert kinds == {
        "an object: any name, with a text",
        "an object: any name, with an object",
        "true or false",
    }


def test_what_leads_nowhere() -> None:
    assert teach.page("/nowhere") is None
    assert teach.page("/mounts/x") is None
    assert teach.page("/hostname/x") is None
    assert teach.near("/linux/resources/memory/limt") == "/linux/resources/memory/limit"
    assert teach.near("/mounts/3/optoins/0") == "/mounts/3/options/0"
    assert teach.near("/zzzzzzzz") == ""
    assert teach.near("/hostname") == ""
    assert teach.page("/linux/sysctl/net~1ipv4") is not None


def test_by_name() -> None:
    assert [page.pointer for page in teach.named("HostName")] == ["/hostname"]
    assert {page.pointer for page in teach.named("path")} > {"/root/path", "/linux/namespaces/N/path"}
    assert teach.named("nosuch") == []
    assert teach.guess("hostnmae") == "hostname"
    assert teach.guess("rslaev") == "rslave"
    assert teach.guess("zzzzzzzz") == ""
    assert teach.option("zzzz") == ""
    assert teach.option("idmap=uids=0-1-1") == teach.option("idmap")
