"""Compile a lowered seccomp section to BPF with libseccomp, by ctypes; only if it is not in the cache.

Law 2: this is the slow path. It may load a library and take milliseconds, and must explain well. pyseccomp is
not used: it loads the library at import, replaces the error number of a refused rule by its own exceptions,
and would be a dependency for eleven calls. Source of the prototypes: seccomp.h of libseccomp 2.5.
"""

from __future__ import annotations

import ctypes  # noqa: TID251 - rare, thanks to the cache; and a library that may be missing is not for _linux.c
import os
from errno import EACCES, EDOM, EEXIST, EFAULT, EINVAL, ENOSYS

from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.linux.flags import SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_LOG, SECCOMP_RET_TRACE
from pyrunc.plan import seccomp as plan
from pyrunc.plan.seccomp_shrink import shrink
from pyrunc.plan.seccomp_stub import INSTRUCTION_SIZE, enosys_stub, newest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

LIBRARY = "libseccomp.so.2"

# enum scmp_filter_attr
_OPTIMIZE = 8
# A binary tree is faster from about this many calls on (runc's measurement), and libseccomp before 2.5.5
# builds a wrong one if there are no rules.
_TREE_FROM = 32
# linux/bpf_common.h BPF_MAXINSNS: seccomp(2) returns EINVAL for more.
_MOST_INSTRUCTIONS = 4096

# Actions under which a newer call needs no answer of ours.
_OPEN = (SECCOMP_RET_ALLOW, SECCOMP_RET_LOG, SECCOMP_RET_TRACE)

# Meaning of libseccomp's negative results for a rule (seccomp_rule_add(3)); strerror would speak of files.
_REFUSALS = {
    EACCES: "the rule repeats the default action",
    EFAULT: "the call has no number that all architectures of the profile could share",
    EEXIST: "an earlier rule decides the same call and arguments differently",
    EINVAL: "the action or a condition is not known to this libseccomp or this kernel",
    EDOM: "an architecture cannot express it",
}


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class _Version(ctypes.Structure):
    """struct scmp_version."""

    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


class Library:
    """libseccomp, with the prototypes of the functions that are used."""

    def __init__(self) -> None:
        """Load the library.

        Raises:
            Failure: it is not installed.

        """
        try:
            lib = ctypes.CDLL(LIBRARY)
        except OSError as exc:
            raise Failure(
                f"a seccomp filter needs {LIBRARY}, which cannot be loaded ({exc})",
                pointer="/linux/seccomp",
                hint="install libseccomp (Debian: libseccomp2, Fedora and Alpine: libseccomp)",
            ) from exc
        u32, text, context, number = ctypes.c_uint32, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int
        comparisons = ctypes.POINTER(_Comparison)
        for name, result, arguments in (
            ("seccomp_version", ctypes.POINTER(_Version), ()),
            ("seccomp_init", context, (u32,)),
            ("seccomp_release", None, (context,)),
            ("seccomp_arch_native", u32, ()),
            ("seccomp_arch_resolve_name", u32, (text,)),
            ("seccomp_arch_add", number, (context, u32)),
            ("seccomp_attr_set", number, (context, number, u32)),
            ("seccomp_syscall_resolve_name", number, (text,)),
            ("seccomp_syscall_resolve_name_arch", number, (u32, text)),
            ("seccomp_rule_add_array", number, (context, u32, number, ctypes.c_uint, comparisons)),
            ("seccomp_export_bpf", number, (context, number)),
        ):
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        self.call = lib

    def version(self) -> str:
        """Return the version as "2.5.4"."""
        found = self.call.seccomp_version().contents
        return f"{found.major}.{found.minor}.{found.micro}"


def version() -> str | None:
    """Return libseccomp's version, None if it is not installed (for `version` and `features`)."""
    try:
        return Library().version()
    except Failure:
        return None


def build(lowered: plan.Filter) -> tuple[bytes, list[str]]:
    """Compile a filter.

    Args:
        lowered: what plan.seccomp.lower returned.

    Returns:
        The instructions for seccomp(2), and the names of calls that this libseccomp does not know. As in runc
            they are left out, and treated like calls that are newer than the profile.

    Raises:
        Failure: libseccomp is missing or refuses something, which the message names, with its place in
            config.json.

    """
    library = Library()
    context = library.call.seccomp_init(lowered.default)
    if not context:
        word = plan.action_name(lowered.default)
        text = f"libseccomp {library.version()} does not take {word} as default action"
        raise Failure(text, pointer=lowered.pointer + "/defaultAction")
    try:
        tokens = _add_architectures(library, context, lowered)
        unknown = _add_rules(library, context, lowered)
        filtered = _export(library, context, lowered)
    finally:
        library.call.seccomp_release(context)
    program = shrink(_stub(library, lowered, tokens) + filtered)
    count = len(program) // INSTRUCTION_SIZE
    if count > _MOST_INSTRUCTIONS:
        text = f"the filter has {count} instructions, Linux takes {_MOST_INSTRUCTIONS}"
        raise Failure(text, pointer=lowered.pointer, hint="use fewer rules with conditions on arguments")
    return program, unknown


def _add_architectures(library: Library, context: int, lowered: plan.Filter) -> list[int]:
    """Add the profile's architectures to the native one; return all their tokens."""
    tokens = [library.call.seccomp_arch_native()]
    for index, word in enumerate(lowered.architectures):
        place = f"{lowered.pointer}/architectures/{index}"
        token = library.call.seccomp_arch_resolve_name(plan.ARCHITECTURES[word].encode())
        if not token:
            raise Failure(f"libseccomp {library.version()} does not know {word}", pointer=place)
        answer = -library.call.seccomp_arch_add(context, token)
        if answer == EEXIST:
            continue
        if answer:
            text = f"{word} cannot be filtered on this machine"
            raise Failure(text, pointer=place, hint="leave out architectures the processor cannot run")
        tokens.append(token)
    return tokens


def _add_rules(library: Library, context: int, lowered: plan.Filter) -> list[str]:
    unknown = []
    if sum(len(rule[1]) for rule in lowered.rules) > _TREE_FROM:
        # A library without this attribute refuses it, and makes the same filter as a list.
        library.call.seccomp_attr_set(context, _OPTIMIZE, 2)
    for rule in lowered.rules:
        for index, name in enumerate(rule[1]):
            number = library.call.seccomp_syscall_resolve_name(name.encode())
            if number == -1:
                unknown.append(name)
                continue
            for conditions in rule[2] or ((),):
                array = (_Comparison * len(conditions))(*[_Comparison(*each) for each in conditions])
                add = library.call.seccomp_rule_add_array
                answer = add(context, rule[0], number, len(conditions), array)
                if answer:
                    _refused(lowered, rule, index, -answer)
    return unknown


def _refused(lowered: plan.Filter, rule: plan.Rule, index: int, answer: int) -> NoReturn:
    why = _REFUSALS.get(answer) or os.strerror(answer)
    text = f"libseccomp refuses {plan.action_name(rule[0])} for {rule[1][index]}: {why}"
    raise Failure(text, pointer=f"{lowered.pointer}/syscalls/{rule[3]}/names/{index}")


def _export(library: Library, context: int, lowered: plan.Filter) -> bytes:
    with closing(os.memfd_create("seccomp", os.MFD_CLOEXEC)) as fd:
        answer = library.call.seccomp_export_bpf(context, fd)
        if answer:
            raise Failure("libseccomp cannot build the filter", pointer=lowered.pointer, errno=-answer)
        return os.pread(fd, os.fstat(fd).st_size, 0)


def _stub(library: Library, lowered: plan.Filter, tokens: list[int]) -> bytes:
    # A tracer is expected to handle newer calls itself, and ENOSYS would prevent that; as in runc.
    kind = lowered.default & ~0xFFFF
    if kind in _OPEN or lowered.default == SECCOMP_RET_ERRNO | ENOSYS:
        return b""
    names = [name.encode() for rule in lowered.rules for name in rule[1]]
    names += [name.encode() for name in lowered.mentioned]
    resolve = library.call.seccomp_syscall_resolve_name_arch
    return enosys_stub({token: newest(token, [resolve(token, name) for name in names]) for token in tokens})
