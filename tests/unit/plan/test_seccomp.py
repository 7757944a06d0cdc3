"""The meaning of a linux.seccomp section, and its errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc.errors import Failure
from pyrunc.linux.flags import (
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_TRACE,
)
from pyrunc.plan import seccomp

if TYPE_CHECKING:
    from typing import Any


def lowered(section: dict[str, Any]) -> seccomp.Filter:
    found = seccomp.lower(section)
    assert found is not None
    return found


def refusal(section: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(Failure) as caught:
        seccomp.lower(section)
    return caught.value.pointer, caught.value.message


def rule(action: str = "SCMP_ACT_ERRNO", *names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names or ("mkdir",)), "action": action, **more}


def arg(index: int = 0, op: str = "SCMP_CMP_EQ", **more: int) -> dict[str, Any]:
    return {"index": index, "value": 1, "op": op, **more}


ALLOW_ALL = {"defaultAction": "SCMP_ACT_ALLOW"}


@pytest.mark.parametrize("section", [None, {}, {"architectures": ["SCMP_ARCH_X86"]}, {"syscalls": []}])
def test_without_default_and_rules_seccomp_is_off(section: dict[str, Any] | None) -> None:
    assert seccomp.lower(section) is None


@pytest.mark.parametrize(("word", "value"), list(seccomp.ACTIONS.items()))
def test_every_action_has_the_kernels_number(word: str, value: int) -> None:
    if word == "SCMP_ACT_NOTIFY":
        section = {**ALLOW_ALL, "listenerPath": "/s", "syscalls": [rule(word)]}
        assert lowered(section).rules[0][0] == value
        return
    expected = value | 1 if word in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else value
    assert lowered({"defaultAction": word}).default == expected


@pytest.mark.parametrize("word", ["", "SCMP_ACT_XYZ", "scmp_act_allow"])
def test_an_unknown_action_is_said_as_engines_know_it(word: str) -> None:
    text = f"string {word} is not a valid action for seccomp"
    assert refusal({"defaultAction": word, "syscalls": [rule()]}) == ("/linux/seccomp/defaultAction", text)
    section = {**ALLOW_ALL, "syscalls": [rule(), rule(word)]}
    assert refusal(section) == ("/linux/seccomp/syscalls/1/action", text)


def test_the_pointer_begins_where_the_caller_says() -> None:
    with pytest.raises(Failure) as caught:
        seccomp.lower({"defaultAction": "x"}, "/process/x")
    assert caught.value.pointer == "/process/x/defaultAction"


def test_errno_goes_into_the_answer() -> None:
    found = lowered(
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [rule(errnoRet=5)]}
    )
    assert found.default == SECCOMP_RET_ERRNO | 38
    assert found.rules[0][0] == SECCOMP_RET_ERRNO | 5
    trace = lowered({"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 65535})
    assert trace.default == SECCOMP_RET_TRACE | 65535


def test_errno_0_is_a_number_like_others() -> None:
    assert lowered({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 0}).default == SECCOMP_RET_ERRNO


def test_an_errno_where_none_is_possible_is_refused() -> None:
    section = {**ALLOW_ALL, "defaultErrnoRet": 1}
    assert refusal(section) == ("/linux/seccomp/defaultErrnoRet", "SCMP_ACT_ALLOW has no errno to return")
    section = {"defaultAction": "SCMP_ACT_LOG", "syscalls": [rule("SCMP_ACT_ALLOW", errnoRet=0)]}
    assert refusal(section)[0] == "/linux/seccomp/syscalls/0/errnoRet"


@pytest.mark.parametrize(("word", "errno"), [("SCMP_ACT_ERRNO", 4096), ("SCMP_ACT_TRACE", 65536)])
def test_an_errno_the_kernel_would_cut_is_refused(word: str, errno: int) -> None:
    pointer, text = refusal({"defaultAction": word, "defaultErrnoRet": errno})
    assert pointer == "/linux/seccomp/defaultErrnoRet"
    assert text.startswith(f"{errno} does not fit")


def test_rules_that_repeat_the_default_are_left_out_but_remembered() -> None:
    found = lowered({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(), rule("SCMP_ACT_ALLOW", "read")]})
    assert [each[1] for each in found.rules] == [["read"]]
    assert found.rules[0][3] == 1
    assert found.mentioned == ("mkdir",)


def test_another_errno_is_another_action() -> None:
    found = lowered({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(errnoRet=2)]})
    assert len(found.rules) == 1


def test_absent_flags_allow_speculation_and_empty_flags_do_not() -> None:
    assert lowered(ALLOW_ALL).flags == 4
    assert lowered({**ALLOW_ALL, "flags": []}).flags == 0


def test_flags_add_up() -> None:
    words = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    assert lowered({**ALLOW_ALL, "flags": words}).flags == 6
    words.append("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")
    notify = {**ALLOW_ALL, "flags": words, "listenerPath": "/s", "syscalls": [rule("SCMP_ACT_NOTIFY")]}
    assert lowered(notify).flags == 6 | 32 | 8


def test_unknown_flags_and_flags_that_cannot_work_are_refused() -> None:
    section = {**ALLOW_ALL, "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_X"]}
    text = "seccomp flag SECCOMP_FILTER_FLAG_X is not known to pyrunc"
    assert refusal(section) == ("/linux/seccomp/flags/1", text)
    section = {**ALLOW_ALL, "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}
    assert refusal(section)[0] == "/linux/seccomp/flags"


def test_architectures_keep_their_order_and_lose_repetitions() -> None:
    words = ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert lowered({**ALLOW_ALL, "architectures": words}).architectures == ("SCMP_ARCH_X32", "SCMP_ARCH_X86")


def test_an_unknown_architecture_is_refused() -> None:
    section = {**ALLOW_ALL, "architectures": ["SCMP_ARCH_X32", "SCMP_ARCH_VAX"]}
    text = "string SCMP_ARCH_VAX is not a valid arch for seccomp"
    assert refusal(section) == ("/linux/seccomp/architectures/1", text)


def test_conditions_on_different_arguments_are_joined() -> None:
    args = [arg(0, "SCMP_CMP_MASKED_EQ", valueTwo=7), arg(5, "SCMP_CMP_NE")]
    found = lowered({**ALLOW_ALL, "syscalls": [rule(args=args)]})
    assert found.rules[0][2] == (((0, 7, 1, 7), (5, 1, 1, 0)),)


def test_conditions_on_the_same_argument_are_alternatives() -> None:
    found = lowered({**ALLOW_ALL, "syscalls": [rule(args=[arg(0), arg(1), arg(0)])]})
    assert found.rules[0][2] == (((0, 4, 1, 0),), ((1, 4, 1, 0),), ((0, 4, 1, 0),))


def test_no_conditions_is_always() -> None:
    found = lowered({**ALLOW_ALL, "syscalls": [rule(), rule(args=[])]})
    assert [each[2] for each in found.rules] == [(), ()]


def test_wrong_conditions_are_refused_with_their_place() -> None:
    section = {**ALLOW_ALL, "syscalls": [rule(args=[arg(0), arg(6)])]}
    assert refusal(section)[0] == "/linux/seccomp/syscalls/0/args/1/index"
    section = {**ALLOW_ALL, "syscalls": [rule(args=[arg(0, "EQ")])]}
    text = "string EQ is not a valid operator for seccomp"
    assert refusal(section) == ("/linux/seccomp/syscalls/0/args/0/op", text)


def test_notify_asks_for_a_listener_and_keeps_where_it_goes() -> None:
    section = {**ALLOW_ALL, "listenerPath": "/run/agent", "syscalls": [rule("SCMP_ACT_NOTIFY")]}
    found = lowered({**section, "listenerMetadata": "x"})
    assert found.flags & SECCOMP_FILTER_FLAG_NEW_LISTENER
    assert (found.listener, found.metadata) == ("/run/agent", "x")


def test_a_listener_path_without_notify_is_ignored() -> None:
    assert not lowered({**ALLOW_ALL, "listenerPath": "/run/agent"}).flags & SECCOMP_FILTER_FLAG_NEW_LISTENER


def test_what_could_not_be_answered_is_refused() -> None:
    text = "SCMP_ACT_NOTIFY cannot be used for the write syscall"
    section = {**ALLOW_ALL, "listenerPath": "/s", "syscalls": [rule("SCMP_ACT_NOTIFY", "mkdir", "write")]}
    assert refusal(section) == ("/linux/seccomp/syscalls/0/names/1", text)
    text = "SCMP_ACT_NOTIFY cannot be used as default action"
    assert refusal({"defaultAction": "SCMP_ACT_NOTIFY"}) == ("/linux/seccomp/defaultAction", text)


def test_a_notification_needs_somebody_to_notify() -> None:
    assert refusal({**ALLOW_ALL, "syscalls": [rule("SCMP_ACT_NOTIFY")]})[0] == "/linux/seccomp/listenerPath"
    assert refusal({**ALLOW_ALL, "listenerMetadata": "x"})[0] == "/linux/seccomp/listenerMetadata"


@pytest.mark.parametrize(
    ("section", "allowed"),
    [
        (ALLOW_ALL, True),
        ({"defaultAction": "SCMP_ACT_LOG"}, True),
        ({"defaultAction": "SCMP_ACT_ERRNO"}, False),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("SCMP_ACT_ALLOW", "sendmsg")]}, True),
        (
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [rule("SCMP_ACT_ALLOW", "sendmsg", args=[arg()])],
            },
            False,
        ),
        ({**ALLOW_ALL, "syscalls": [rule("SCMP_ACT_ERRNO", "sendmsg", args=[arg()])]}, False),
        ({**ALLOW_ALL, "syscalls": [rule("SCMP_ACT_ERRNO", "sendto")]}, True),
    ],
)
def test_always_allows(section: dict[str, Any], *, allowed: bool) -> None:
    assert lowered(section).always_allows("sendmsg") is allowed


def test_describe_is_one_line_with_everything() -> None:
    section = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86"],
        "listenerPath": "/run/agent",
        "syscalls": [rule("SCMP_ACT_NOTIFY", "mkdir", "mkdirat"), rule("SCMP_ACT_ALLOW", "read")],
    }
    assert lowered(section).describe() == (
        "seccomp filter: default SCMP_ACT_ERRNO(38); 2 rules for 3 system calls; for SCMP_ARCH_X86; "
        "with SECCOMP_FILTER_FLAG_SPEC_ALLOW; listener /run/agent"
    )
    assert lowered({**ALLOW_ALL, "flags": []}).describe() == (
        "seccomp filter: default SCMP_ACT_ALLOW; 0 rules for 0 system calls; for the native architecture"
    )


def test_an_action_without_a_name_is_shown_as_its_number() -> None:
    assert seccomp.action_name(0x12340000) == "0x12340000"
    assert seccomp.action_name(SECCOMP_RET_KILL_THREAD) == "SCMP_ACT_KILL_THREAD"


def test_process_state_has_metadata_only_if_given() -> None:
    section = {**ALLOW_ALL, "listenerPath": "/s", "syscalls": [rule("SCMP_ACT_NOTIFY")]}
    state: dict[str, object] = {"id": "a", "status": "creating"}
    message = {"ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 7, "state": state}
    assert seccomp.process_state(lowered(section), version="1.3.0", pid=7, state=state) == message
    with_metadata = lowered({**section, "listenerMetadata": "x"})
    message["metadata"] = "x"
    assert seccomp.process_state(with_metadata, version="1.3.0", pid=7, state=state) == message


ARGS = st.fixed_dictionaries(
    {
        "index": st.integers(0, 5),
        "value": st.integers(0, 2**64 - 1),
        "op": st.sampled_from(sorted(seccomp.COMPARISONS)),
    },
    optional={"valueTwo": st.integers(0, 2**64 - 1)},
)
RULES = st.fixed_dictionaries(
    {
        "names": st.lists(st.sampled_from(["read", "mkdir", "a'b", "a, b"]), min_size=1, max_size=3),
        "action": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_KILL", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG"]),
    },
    optional={"args": st.lists(ARGS, max_size=3)},
)
SECTIONS = st.fixed_dictionaries(
    {"defaultAction": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"])},
    optional={
        "syscalls": st.lists(RULES, max_size=4),
        "architectures": st.lists(st.sampled_from(sorted(seccomp.ARCHITECTURES)), max_size=3),
        "flags": st.lists(st.sampled_from(list(seccomp.FLAGS)[:3]), max_size=3),
    },
)


@given(SECTIONS)
def test_every_name_is_either_in_a_rule_or_remembered(section: dict[str, Any]) -> None:
    found = lowered(section)
    named = [name for entry in section.get("syscalls", ()) for name in entry["names"]]
    kept = [name for each in found.rules for name in each[1]]
    assert sorted(kept + list(found.mentioned)) == sorted(named)
    assert all(each[0] != found.default for each in found.rules)


@given(SECTIONS, SECTIONS)
def test_two_filters_have_one_text_only_if_they_are_one(left: dict[str, Any], right: dict[str, Any]) -> None:
    one, other = lowered(left), lowered(right)
    same = (one.default, one.architectures, one.rules, one.mentioned) == (
        other.default,
        other.architectures,
        other.rules,
        other.mentioned,
    )
    assert (one.text() == other.text()) is same
