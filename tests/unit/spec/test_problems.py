"""What the slow path says: places, lines, sentences, guesses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.spec import problems
from tests.support.specs import engine, small, with_linux, with_process


def told(config: object) -> list[tuple[str, str]]:
    report = problems.Report(json.dumps(config).encode(), "config")
    return [(problem.pointer, problem.text) for problem in report.problems]


def hinted(config: object) -> list[tuple[str, str]]:
    report = problems.Report(json.dumps(config).encode(), "config")
    return [(problem.pointer, problem.text) for problem in report.hints]


def first(config: object) -> str:
    ((_, text),) = told(config)
    return text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "must be a string, not the number 5"),
        (1.5, "must be a string, not the number 1.5"),
        (True, "must be a string, not true"),
        ([], "must be a string, not an array"),
        ({}, "must be a string, not an object"),
        ("\0", '"\\u0000" contains a NUL character, where the kernel would cut it off'),
    ],
)
def test_text_of_a_wrong_type(value: object, text: str) -> None:
    assert told(small(hostname=value)) == [("/hostname", text)]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (small(mounts={}), "must be an array, not an object"),
        (small(mounts=[None]), "must be an object, not null"),
        (small(mounts=[{"destination": "/a", "options": "ro"}]), 'must be an array, not the string "ro"'),
        (with_process(terminal=1), "must be true or false, not the number 1"),
        (with_process(user={"uid": "root"}), 'must be an integer, not the string "root"'),
        (with_process(user={"uid": 1.0}), "must be an integer, not the number 1.0"),
        (with_process(user={"uid": False}), "must be an integer, not false"),
        (with_process(user={"uid": 4294967295}), "4294967295 is out of range (0 to 4294967294)"),
        (with_process(oomScoreAdj=1001), "1001 is out of range (-1000 to 1000)"),
        (
            with_linux(seccomp={"defaultAction": "", "syscalls": [{"names": [], "action": "SCMP_ACT_LOG"}]}),
            "must not be empty",
        ),
        (small(annotations={"": "a"}), '"" is empty or contains a NUL character'),
        (small(root={"path": ""}), '"" is empty or contains a NUL character'),
        (with_linux(netDevices={"eth 0": {}}), 'invalid network device name "eth 0"'),
        (
            with_linux(resources={"unified": {"a/b": ""}}),
            "\"a/b\" is not a plain file name: it must not be empty, '.' or '..', nor contain '/' or NUL",
        ),
        (
            with_linux(resources={"hugepageLimits": [{"pageSize": "2mB\n", "limit": 1}]}),
            '"2mB\\n" is not a page size: it is written as 64KB, 2MB or 1GB',
        ),
        (small(zos={"namespaces": [{"type": "time"}]}), '"time" is not a word that may stand here'),
    ],
)
def test_sentences(config: dict[str, Any], text: str) -> None:
    assert first(config).startswith(text)


MEMORY_FLAGS = ("MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES")


@pytest.mark.parametrize(
    ("config", "place", "text"),
    [
        (
            with_linux(also=("net",)),
            "/linux/namespaces/6/type",
            'namespace "net" does not exist; did you mean "network"?',
        ),
        (
            with_linux(also=("foo",)),
            "/linux/namespaces/6/type",
            'namespace "foo" does not exist (one of pid, network, mount, ipc, uts, user, cgroup, time)',
        ),
        (
            with_process(rlimits=[{"type": "NOFILE", "soft": 1, "hard": 1}]),
            "/process/rlimits/0/type",
            'wrong rlimit value: NOFILE; did you mean "RLIMIT_NOFILE"?',
        ),
        (
            with_process(rlimits=[{"type": "xyz", "soft": 1, "hard": 1}]),
            "/process/rlimits/0/type",
            "wrong rlimit value: xyz",
        ),
        (
            with_linux(memoryPolicy={"mode": "INTERLEAVE", "nodes": "0"}),
            "/linux/memoryPolicy/mode",
            'invalid memory policy mode "INTERLEAVE"; did you mean "MPOL_INTERLEAVE"?',
        ),
        (
            with_linux(memoryPolicy={}),
            "/linux/memoryPolicy",
            'invalid memory policy mode: property "mode" is missing',
        ),
        (
            with_linux(memoryPolicy={"mode": "MPOL_LOCAL", "flags": ["badflag"]}),
            "/linux/memoryPolicy/flags/0",
            f'invalid memory policy flag "badflag" (one of {", ".join(MEMORY_FLAGS)})',
        ),
        (
            with_linux(rootfsPropagation="rslaev"),
            "/linux/rootfsPropagation",
            'rootfsPropagation=rslaev is not supported; did you mean "rslave"?',
        ),
        (
            with_linux(personality={"domain": "linux32"}),
            "/linux/personality/domain",
            'invalid personality domain linux32; did you mean "LINUX32"?',
        ),
        (
            with_linux(devices=[{"path": "/d", "type": "x"}]),
            "/linux/devices/0/type",
            'invalid device type "x" (one of c, b, u, p)',
        ),
        (
            with_linux(resources={"devices": [{"allow": True, "type": "x", "access": "r"}]}),
            "/linux/resources/devices/0/type",
            'invalid cgroup device type "x" (one of a, c, b)',
        ),
        (
            with_linux(seccomp={"defaultAction": "ALLOW"}),
            "/linux/seccomp/defaultAction",
            'string ALLOW is not a valid action for seccomp; did you mean "SCMP_ACT_ALLOW"?',
        ),
        (
            with_process(ioPriority={"class": "BE", "priority": 8}),
            "/process/ioPriority/class",
            'invalid ioPriority.Class: "BE"; did you mean "IOPRIO_CLASS_BE"?',
        ),
        (
            with_linux(timeOffsets={"realtime": {}}),
            "/linux/timeOffsets/realtime",
            '"realtime" is not a clock a time namespace can offset (one of monotonic, boottime)',
        ),
        (
            small(mounts=[{"dest": "/a"}]),
            "/mounts/0",
            'property "destination" is missing; did you mean "dest" to be it?',
        ),
        (with_process(scheduler={"nice": 1}), "/process/scheduler", "scheduler policy is required"),
    ],
)
def test_guesses(config: dict[str, Any], place: str, text: str) -> None:
    assert (place, text) in told(config)


def test_long_values_are_not_repeated_at_length() -> None:
    assert len(first(with_linux(also=("x" * 1000,)))) < 250


def test_every_missing_property_is_named() -> None:
    assert told(small(process={"cwd": "/", "args": ["a"], "rlimits": [{}]})) == [
        ("/process/rlimits/0", 'property "hard" is missing'),
        ("/process/rlimits/0", 'property "soft" is missing'),
        ("/process/rlimits/0", 'property "type" is missing'),
    ]


def test_meaning_is_checked_beside_form() -> None:
    """A wrong type in one section must not hide a wrong value in another."""
    config = {**with_linux(without=("uts",), also=({"type": 5},)), "hostname": "h"}
    config["process"].update(cwd="x", rlimits="none", env=["A"])
    config["mounts"] = [
        {"destination": "/a", "options": [1]},
        {"destination": "/b", "type": "tmpfs", "uidMappings": []},
    ]
    assert told(config) == [
        ("/linux/namespaces/5/type", "must be a string, not the number 5"),
        ("/mounts/0/options/0", "must be a string, not the number 1"),
        ("/process/cwd", "Cwd must be an absolute path"),
        ("/process/env/0", "invalid environment variable: missing '=' in \"A\""),
        ("/process/rlimits", 'must be an array, not the string "none"'),
    ]


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (small(root=5), "/root"),
        (small(process={"args": ["a"]}), "/process"),
        (with_process(args="sh"), "/process/args"),
        (with_linux(namespaces=5, maskedPaths=["/a"]), "/linux/namespaces"),
        (small(linux=5, hostname="h"), "/linux"),
        (with_linux(also=("user",), uidMappings=5, gidMappings=5), "/linux/uidMappings"),
        (with_linux(devices=[{"type": 5}, {}], sysctl={"kernel.sem": ""}), "/linux/devices/0"),
    ],
)
def test_what_cannot_be_read_is_not_called_missing(config: dict[str, Any], place: str) -> None:
    texts = [text for _, text in told(config)]
    assert place in [pointer for pointer, _ in told(config)]
    assert not [
        text for text in texts if "namespace" in text or "must be specified" in text or "args must" in text
    ]


@pytest.mark.parametrize("config", [5, [], "x", True])
def test_no_config_at_all(config: object) -> None:
    assert len(told(config)) == 1


def test_nothing_is_there() -> None:
    assert told({}) == [("", 'property "ociVersion" is missing'), ("/root", "root must be specified")]


def test_no_process_at_all() -> None:
    report = problems.Report(b'{"cwd": 5, "env": ["A"]}', "process")
    assert [problem.pointer for problem in report.problems] == ["/cwd"]


def test_half_a_character() -> None:
    raw = json.dumps(
        {
            **small(),
            "annotations": {"a": "\ud800", "\udfff": "b"},
            "mounts": [{"destination": "/\udc80", "type": "tmpfs"}],
        }
    )
    report = problems.Report(raw.encode(), "config")
    assert [(problem.pointer, problem.text) for problem in report.problems] == [
        ("/annotations/a", '"\\ud800" has half a character: \\ud800 to \\udfff come in pairs'),
        ("/annotations/\udfff", 'the name "\\udfff" has half a character: \\ud800 to \\udfff come in pairs'),
        ("/mounts/0/destination", '"/\\udc80" has half a character: \\ud800 to \\udfff come in pairs'),
    ]
    assert "/annotations/\\udfff" in report.problems[1].shown("config.json")


def test_bytes_that_are_no_text() -> None:
    report = problems.Report(b'{\n"a": "\xff"}', "config")
    assert report.problems == [problems.Problem(2, "", "not UTF-8: byte 0xff (invalid start byte)")]


def test_text_that_is_no_json() -> None:
    report = problems.Report(b'{\n"a": 1,}', "config")
    assert [problem.shown("config.json") for problem in report.problems] == [
        "config.json:2:8: not JSON: there is a comma before this }, but no property follows it"
    ]


def test_any_json_at_all() -> None:
    assert problems.value_of(b'[{"a": null}, "\\ud800"]', "x.json") == [{}, "\ud800"]
    with pytest.raises(Failure) as caught:
        problems.value_of(b"[1,]", "x.json")
    assert (
        caught.value.text() == "x.json:1:4: not JSON: there is a comma before this ], but no value follows it"
    )


def test_names_reach_a_terminal_harmless() -> None:
    problem = problems.Problem(1, "/annotations/\x1b[2J", "x")
    assert problem.shown("config.json") == "config.json:1: /annotations/\\u001b[2J: x"


def test_misspelled_names() -> None:
    config = small(
        hostName="h",
        mounts=[
            {"destination": "/a", "type": "tmpfs", "optoins": []},
            {"destination": "/b", "type": "tmpfs", "options": [], "option": []},
        ],
        extension={"hostnam": 1},
        annotations={"hostnam": "1"},
    )
    config["linux"]["netDevices"] = {"eth0": {"nam": "eth1"}}
    config["linux"]["seccomp"] = {"defaultaction": ""}
    config["x"] = 1
    assert hinted(config) == [
        ("/hostName", 'not a property of the specification; did you mean "hostname"?'),
        (
            "/linux/netDevices/eth0/nam",
            'not a property of the specification; did you mean "name"?',
        ),
        (
            "/linux/seccomp/defaultaction",
            'not a property of the specification; did you mean "defaultAction"?',
        ),
        ("/mounts/0/optoins", 'not a property of the specification; did you mean "options"?'),
        ("/mounts/1/option", 'not a property of the specification; did you mean "options"?'),
    ]
    assert told(config) == []


def test_names_that_are_there_twice() -> None:
    report = problems.Report(
        json.dumps(small()).replace("{", '{"hostname": "a", "hostname": "b",', 1).encode(), "config"
    )
    assert report.problems == []
    assert report.hints == [
        problems.Problem(1, "/hostname", "this property is there twice; the last one counts")
    ]


def test_engines_misspell_nothing() -> None:
    assert hinted(engine()) == []


def test_hints_come_with_problems_only() -> None:
    config = small(hostName="h")
    assert problems.judge(json.dumps(config).encode(), "config.json", "config") == config
    config["hostname"] = 5
    with pytest.raises(Failure) as caught:
        problems.judge(json.dumps(config).encode(), "config.json", "config")
    assert caught.value.text().splitlines() == [
        "config.json:1: /hostname: must be a string, not the number 5",
        'config.json:1: /hostName: not a property of the specification; did you mean "hostname"?',
    ]


def test_a_message_has_an_end() -> None:
    config = with_process(env=["A"] * 100)
    with pytest.raises(Failure) as caught:
        problems.judge(json.dumps(config).encode(), "config.json", "config")
    lines = caught.value.text().splitlines()
    assert len(lines) == problems.MOST_SHOWN + 1
    assert lines[-1] == "config.json: and 75 more problems; pyrunc validate shows all"


def test_problems_come_in_the_order_of_the_file() -> None:
    text = '{\n"process": {"cwd": "x",\n"args": []},\n"hostname": 5,\n"ociVersion": 5}'
    report = problems.Report(text.encode(), "config")
    assert [problem.line for problem in report.problems] == [1, 2, 3, 4, 5]


def test_a_mount_that_can_never_be_is_found_with_the_rest() -> None:
    options = ["rbind", "rslaev"]
    config = small(
        hostname=5, mounts=[{"destination": "/a", "type": "bind", "source": "/", "options": options}]
    )
    assert [
        problem.pointer for problem in problems.Report(json.dumps(config).encode(), "config").problems
    ] == [
        "/hostname",
        "/mounts/0/options/1",
    ]


def test_the_planners_refusal_gets_its_line_and_company() -> None:
    text = json.dumps(small(hostname=5), indent=1).encode()
    line = text[: text.index(b'"root"')].count(b"\n") + 1
    refused = problems.place(
        Failure("no such root", pointer="/root", errno=2, hint="look"), text, "c.json"
    ).text()
    assert f"c.json:{line}: /root: no such root: no such file or directory; look" in refused
    assert "/hostname: must be a string" in refused
    known = problems.place(Failure("again", pointer="/hostname"), text, "c.json").text()
    assert known.count("/hostname") == 1


def test_a_refusal_of_a_file_that_is_in_order_otherwise() -> None:
    """Only the planner's message is shown; jsonschema, which is slow, is not used."""
    raw = json.dumps(small(), indent=1).encode()
    shown = problems.place(Failure("too many", pointer="/process/args"), raw, "config.json").text()
    line = raw[: raw.index(b'"args"')].count(b"\n") + 1
    assert shown == f"config.json:{line}: /process/args: too many"


def test_how_bad_it_is_stands_behind_the_line() -> None:
    problem = problems.Problem(3, "/hostname", "odd")
    assert problem.shown("config.json", "warning") == "config.json:3: warning: /hostname: odd"
    assert problem.shown("config.json") == "config.json:3: /hostname: odd"
