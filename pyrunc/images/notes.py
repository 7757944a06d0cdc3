"""What could not be made exactly as in the image: counted, and reported in one warning for each kind."""

from __future__ import annotations


class Notes:
    """Numbers of things that could not be made as in the image. They are no errors.

    Attributes:
        devices: devices that became empty files.
        owners: files of users whose ids are not mapped here.
        attributes: extended attributes that were left out.
        attribute: the name of the first of them.

    """

    def __init__(self) -> None:
        """Begin with zeros."""
        self.devices = 0
        self.owners = 0
        self.attributes = 0
        self.attribute = ""

    def add(self, devices: int, owners: int, attributes: int, attribute: str) -> None:
        """Add the notes of another layer, as facts() returns them."""
        self.devices += devices
        self.owners += owners
        self.attributes += attributes
        self.attribute = self.attribute or attribute

    def facts(self) -> tuple[int, int, int, str]:
        """Return the numbers, to be written as JSON."""
        return self.devices, self.owners, self.attributes, self.attribute

    def words(self) -> list[str]:
        """Return the warnings."""
        found = []
        if self.devices:
            found.append(
                f"{_count(self.devices, 'device')} of the image became an empty file: making one takes root"
            )
        if self.owners:
            found.append(
                f"{_count(self.owners, 'file')} of other users in the image became yours: "
                "keeping owners takes newuidmap and ids in /etc/subuid and /etc/subgid"
            )
        if self.attributes:
            found.append(
                f"{_count(self.attributes, 'extended attribute')} of the image had to be left out, "
                f"the first is {self.attribute}"
            )
        return found


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number > 1 else "")
