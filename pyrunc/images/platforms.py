"""Choose the image for this machine among those with one name.

Source: the image specification, image-index.md: names are Go's (GOOS, GOARCH).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyrunc.errors import Failure, printable

if TYPE_CHECKING:
    from typing import Any

# uname(2)'s machine, and Go's name with the variants that run here, best first; "" is an image without one.
_MACHINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "x86_64": ("amd64", ("", "v1")),
    "aarch64": ("arm64", ("v8", "")),
    "armv7l": ("arm", ("v7", "v6", "v5", "")),
    "armv6l": ("arm", ("v6", "v5", "")),
    "i686": ("386", ("",)),
    "riscv64": ("riscv64", ("",)),
    "ppc64le": ("ppc64le", ("",)),
    "s390x": ("s390x", ("",)),
    "loongarch64": ("loong64", ("",)),
}


class Platform:
    """The platform that is wanted.

    Attributes:
        system: Go's name of it, "linux".
        machine: Go's name of it.
        variants: the variants that will do, best first; () for any.

    """

    def __init__(self, asked: str | None) -> None:
        """Read OS/ARCH[/VARIANT], or ask the machine.

        Raises:
            Failure: it has another form.

        """
        self.asked = bool(asked)
        if asked is None:
            machine = os.uname().machine
            self.system = "linux"
            self.machine, self.variants = _MACHINES.get(machine, (machine, ("",)))
            return
        parts = asked.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise Failure(
                f"--platform {asked!a} is no platform", hint="write OS/ARCH[/VARIANT], as linux/arm64"
            )
        self.system, self.machine = parts[:2]
        self.variants = (parts[2],) if len(parts) == 3 else ()

    def rank(self, found: Any) -> int | None:
        """Return how well an image's platform fits (0 is best), None if it does not.

        Args:
            found: the object of a descriptor, or an image's configuration; both have the same names.

        """
        if not isinstance(found, dict):
            return None
        if (found.get("os"), found.get("architecture")) != (self.system, self.machine):
            return None
        variant = found.get("variant") or ""
        if variant in self.variants:
            return self.variants.index(variant)
        return None if self.variants else 0

    def __str__(self) -> str:
        """Return it as written on the command line."""
        return "/".join((self.system, self.machine, *(self.variants if self.asked else ())))


def name(found: Any) -> str:
    """Return the platform of an image as written on the command line."""
    if not isinstance(found, dict):
        return "?"
    parts = [str(found[key]) for key in ("os", "architecture", "variant") if found.get(key)]
    return printable("/".join(parts)) or "?"
