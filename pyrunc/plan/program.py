"""Steps -> operations: the program for the init program (pyrunc/init).

Law 1: people see steps. An operation is one action of the kernel and belongs to a step; nothing is done
without a step. Law 5: all is decided here. Pure: a program is bytes, made and tested without any rights.
pyrunc/init/program.h has the layout of the bytes, pyrunc/init/operations.def the list of operations.
"""

from __future__ import annotations

import _struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyrunc.plan.steps import Step

# The order gives the numbers; operations.def explains the letters.
SIGNATURES = {
    "PRCTL": "nn",
    "NAME": "s",
    "KEEP": "nb",
    "SIGNALS": "",
    "STDIO_NULL": "i",
    "ALL_CPUS": "",
    "AFFINITY": "b",
    "WRITE": "ib",
    "SETNS": "in",
    "BECOME_ROOT": "nnn",
    "TRY_SETNS": "inn",
    "UNSHARE": "n",
    "CLOCKS": "b",
    "CHROOT": "i",
    "ALONE": "",
    "CLONE": "ni",
    "WAIT": "n",
    "SEND": "n",
    "WIPE": "nn",
    "SETSID": "",
    "OWN_NULL": "",
    "KEYRING": "sn",
    "SCHEDULER": "b",
    "IO_PRIORITY": "n",
    "PERSONALITY": "n",
    "MEMORY_POLICY": "nbn",
    "PROCFS": "o",
    "WRITE_BELOW": "issb",
    "TERMINAL": "iobn",
    "TAKE_TERMINAL": "in",
    "LOOPBACK": "",
    "HOSTNAME": "s",
    "DOMAINNAME": "s",
    "OPEN_PROC": "",
    "HOME": "n",
    "CWD": "s",
    "CWD_AGAIN": "s",
    "SECCOMP": "nbnn",
    "AWAIT": "ii",
    "HOOK": "lllb",
    "RLIMIT": "nnn",
    "STDIO_OWNER": "n",
    "BOUNDING": "n",
    "GROUPS": "b",
    "GROUP": "n",
    "USER": "n",
    "CAPABILITIES": "nnn",
    "AMBIENT": "n",
    "UMASK": "n",
    "FIND": "l",
    "EXEC": "ll",
    "TREE": "iin",
    "PROPAGATION": "n",
    "ATTACH_ROOT": "isn",
    "ROOT_HERE": "",
    "CLONE_PATH": "sno",
    "OPEN_DIRECTORY": "so",
    "OPEN_BELOW": "isno",
    "CLONE_BELOW": "isno",
    "RECEIVE": "nnn",
    "CLOSE": "i",
    "IS_DEVICE": "inn",
    "ATTRIBUTES": "innnn",
    "UNLOCKED_ATTRIBUTES": "innnn",
    "BELOW": "in",
    "PLACE": "sno",
    "ATTACH": "isni",
    "IS_MOUNTED": "i",
    "NOTE": "innns",
    "VERIFY": "nn",
    "SEND_TABLE": "",
    "FSOPEN": "so",
    "FSPICK": "io",
    "FSCONFIG": "il",
    "FSMODE": "ii",
    "FSLAYER": "isi",
    "FSLAYERS": "ibn",
    "FSCREATE": "in",
    "FSMOUNT": "ino",
    "LABEL_MOUNT": "ib",
    "RESTRICT_LIKE": "iin",
    "ASK": "inn",
    "UNLOCK": "ib",
    "NODE": "snnn",
    "SYMLINK": "ssn",
    "CONSOLE": "i",
    "READONLY": "s",
    "MASK": "s",
    "CHDIR": "s",
    "PIVOT": "",
    "MOVE_ROOT": "s",
    "ENTER_ROOT": "",
    "MAKE_CWD": "s",
    "READONLY_ROOT": "",
    "DEADLINE": "n",
    "ROOT_IS": "i",
    "BASE": "ns",
    "TAKE_BACK": "",
    "LOCATE": "sno",
    "DETACH": "i",
    "CLASSIC": "isl",
    "OPEN_PATH": "sno",
    "IS_SAME": "inn",
    "CLONE_SLOT": "ino",
    "PROPAGATION_BUT_STAGED": "n",
    "LEAVE_STAGING": "n",
}
NAMES = tuple(SIGNATURES)
_CODES = {name: number for number, name in enumerate(NAMES)}

_MAGIC, _VERSION, _TRACE = 0x7079696E, 1, 1
_HEADER = _struct.Struct("=6I")
_OPERATION = _struct.Struct("=IIQQQQQ")
_WORD = (1 << 64) - 1
# The name of the process until it executes its program; `state` recognises it by that.
NAME = "pyrunc:[init]"
SOCKET = 0  # the slot of the socket to the parent
ONLY_SOCKET = (SOCKET,)


class Operation:
    """One operation: its name, its arguments as numbers, and its step.

    It is no Record: a container with a thousand mounts has thousands of these, and this makes each cost a
    third.

    Attributes:
        name: as in SIGNATURES.
        arguments: numbers, slots, and offsets in the table of strings.
        step: the step it belongs to.
        tag: a number that comes back in the report of a failure.

    """

    __slots__ = ("arguments", "name", "step", "tag")

    def __init__(self, name: str, arguments: tuple[int, ...], step: Step, tag: int = 0) -> None:
        """Set all attributes."""
        self.name = name
        self.arguments = arguments
        self.step = step
        self.tag = tag

    def __repr__(self) -> str:
        """Show the operation with its arguments."""
        return f"{self.name}{self.arguments}"


class Program:
    """A program while it is made.

    Attributes:
        operations: the operations so far, in order.
        slots: the names of the slots; the first one is the socket.
        strings: the table of strings.

    """

    def __init__(self) -> None:
        """Make a program without operations, with the slot of the socket."""
        self.operations: list[Operation] = []
        self.slots = ["socket"]
        self.strings = bytearray(b"\0")
        self._known: dict[bytes, int] = {b"": 0}
        self._numbers = {"socket": SOCKET}
        self._keep_all: list[int] = []

    def slot(self, name: str) -> int:
        """Return the number of a slot, and make the slot if it is new."""
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self.slots)
            self.slots.append(name)
        return number

    def slots_of(self, name: str, count: int) -> int:
        """Return the first of several consecutive slots."""
        first = self.slot(f"{name}0")
        for number in range(1, count):
            self.slot(f"{name}{number}")
        return first

    def add(self, step: Step, name: str, *arguments: int, tag: int = 0) -> None:
        """Append an operation; negative numbers become the kernel's unsigned ones."""
        if arguments and min(arguments) < 0:
            arguments = tuple(argument & _WORD for argument in arguments)
        self.operations.append(Operation(name, arguments, step, tag))

    def keep(self, step: Step, first: int, slots: Iterable[int] | None = None) -> None:
        """Append the operation that closes all descriptors except those of some slots.

        Args:
            step: the step it belongs to.
            first: the lowest descriptor that may be closed.
            slots: the slots that stay open; None for all slots of the complete program.

        """
        if slots is None:
            self._keep_all.append(len(self.operations))
            self.add(step, "KEEP", first, 0)
            return
        bits = 0
        for slot in slots:
            bits |= 1 << slot
        self.add(step, "KEEP", first, self.blob(bits.to_bytes(bits.bit_length() // 8 + 1, "little")))

    def wipe(self, step: Step) -> None:
        """Append the operation that overwrites all strings so far; later ones are kept."""
        self.add(step, "WIPE", 1, len(self.strings))
        self._known = {b"": 0}

    def text(self, word: str | bytes) -> int:
        """Return the offset of a string.

        Raises:
            ValueError: it has a NUL inside, which no string for the kernel can have.

        """
        data = word.encode("utf-8", "surrogateescape") if isinstance(word, str) else word
        place = self._known.get(data)
        if place is None:
            if 0 in data:
                raise ValueError("a string with a NUL inside")
            place = self._known[data] = len(self.strings)
            self.strings += data + b"\0"
        return place

    def blob(self, data: bytes) -> int:
        """Return offset and length of bytes as one argument. They are aligned for any number."""
        self.strings += bytes(-len(self.strings) % 8)
        place = len(self.strings)
        self.strings += data + b"\0"
        return place | len(data) << 32

    def list(self, words: Iterable[str]) -> int:
        """Return offset and length of a list of strings as one argument.

        Raises:
            ValueError: as text().

        """
        places = [self.text(word) for word in words]
        return self.blob(_struct.pack(f"={len(places)}I", *places))

    def settle(self) -> None:
        """Fill in the slots that stay open, if it is all of them: no slot is added any more."""
        if not self._keep_all:
            return
        every = self.blob(b"\xff" * (len(self.slots) // 8 + 1))
        for number in self._keep_all:
            first, _none = self.operations[number].arguments
            self.operations[number].arguments = first, every
        self._keep_all.clear()

    def encode(self, descriptors: Mapping[str, int], *, trace: bool = False) -> bytes:
        """Return the program as bytes.

        Args:
            descriptors: name of a slot -> the descriptor that is in it at the beginning.
            trace: init records begin and end of each operation.

        """
        self.settle()
        slots = [descriptors.get(name, -1) for name in self.slots]
        slots += [-1] * (len(slots) % 2)
        strings = bytes(self.strings)
        counts = len(self.operations), len(self.slots), len(strings)
        pack, none = _OPERATION.pack, (0, 0, 0, 0, 0)
        rows = [pack(_CODES[o.name], o.tag, *(o.arguments + none)[:5]) for o in self.operations]
        return b"".join(
            (
                _HEADER.pack(_MAGIC, _VERSION, _TRACE if trace else 0, *counts),
                *rows,
                _struct.pack(f"={len(slots)}i", *slots),
                strings,
                bytes(-len(strings) % 8),
                bytes(16 * len(self.operations) if trace else 0),
            )
        )
