"""The file beside a volume's content: JSON, checked when it is read, replaced as a whole."""

from __future__ import annotations

import os

from pyrunc import jsonio
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

META = "volume.json"
FRESH, FILLING, USED = "fresh", "filling", "used"


class Volume(Record):
    """The metadata of a volume.

    Attributes:
        name: its directory's name.
        created: time of creation: RFC 3339 in UTC, whole seconds.
        labels: labels from its creation.
        anonymous: it was made without a name.
        state: FRESH until a container uses it, FILLING while the image's content is copied, then USED.
            FILLING with a free lock means that the filling command was killed.
        maker: the container whose creation made it, () for one made by hand.
        holders: the containers that use it, or did.

    """

    name: str
    created: str = ""
    labels: dict[str, str]
    anonymous: bool = False
    state: str = USED
    maker: tuple[str, ...] = ()
    holders: list[tuple[str, ...]]


def interpret(volume: Volume, text: bytes, path: str) -> None:
    """Take the values of a parsed file.

    Raises:
        Failure: it was not written by pyrunc.

    """
    try:
        values: Any = jsonio.loads(text.decode())
        volume.created = str(values.get("created", ""))
        volume.labels = {str(key): str(value) for key, value in values.get("labels", {}).items()}
        volume.anonymous = values.get("anonymous") is True
        volume.state = str(values.get("state", USED))
        volume.maker = tuple(str(part) for part in values.get("maker", ()))
        volume.holders = [tuple(str(part) for part in holder) for holder in values.get("holders", ())]
    except (ValueError, AttributeError, TypeError):
        raise Failure(
            f"{path} is not a volume's record", hint="remove it; the content beside it stays"
        ) from None


def write(directory: int, volume: Volume) -> None:
    """Write the metadata of a volume into its directory.

    Raises:
        OSError: it cannot be written.

    """
    values = {
        "created": volume.created,
        "labels": volume.labels,
        "anonymous": volume.anonymous,
        "state": volume.state,
        "maker": volume.maker,
        "holders": volume.holders,
    }
    data = jsonio.dumps(values).encode()
    how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with closing(os.open(f".{META}", how, 0o600, dir_fd=directory)) as fd:
        while data:
            data = data[os.write(fd, data) :]
    os.rename(f".{META}", META, src_dir_fd=directory, dst_dir_fd=directory)
