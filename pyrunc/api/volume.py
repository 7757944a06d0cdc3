"""Volume: data that outlives containers (docs/volumes.md), for programs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyrunc.volumes.volume_store import MissingError, Store, default_path, new_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self, TypeAlias

    Path: TypeAlias = str | os.PathLike[str]


class Volume:
    """A volume of a store.

    Attributes:
        name: its name, as in `-v NAME:DESTINATION`.
        root: the directory of the store.

    """

    def __init__(self, name: str, *, root: Path | None = None) -> None:
        """Find a volume.

        Args:
            name: its name.
            root: the store, as for `--volume-root`.

        Raises:
            Failure: there is none.

        """
        self.name = name
        self.root = os.path.abspath(root) if root else default_path()
        self._store = Store(self.root)
        self._store.read(name)

    @classmethod
    def create(
        cls, name: str | None = None, *, labels: Mapping[str, str] | None = None, root: Path | None = None
    ) -> Self:
        """Make a volume, unless it exists already.

        Args:
            name: its name; None for an anonymous volume with a random name.
            labels: its labels.
            root: the store.

        Raises:
            Failure: it cannot be made.

        """
        store = Store(os.path.abspath(root) if root else default_path())
        named = name or new_name()
        store.make(named, labels=dict(labels or {}), anonymous=not name)
        return cls(named, root=store.path)

    @classmethod
    def all(cls, root: Path | None = None) -> list[Self]:
        """Return the volumes of a store."""
        store = Store(os.path.abspath(root) if root else default_path())
        return [cls(name, root=store.path) for name in store.names()]

    @property
    def path(self) -> str:
        """The directory of its content."""
        return self._store.mountpoint(self.name)

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return self._store.read(self.name).labels

    @property
    def created(self) -> str:
        """When it was made: RFC 3339, in UTC."""
        return self._store.read(self.name).created

    @property
    def users(self) -> list[tuple[str, str]]:
        """The containers that use it, stopped ones included: state root and id of each."""
        return [(user[0], user[1]) for user in self._store.users(self._store.read(self.name))]

    def delete(self, *, force: bool = False) -> None:
        """Remove it with its content.

        Args:
            force: a missing volume is no error.

        Raises:
            Failure: a container uses it, or it does not exist.

        """
        try:
            self._store.remove(self.name)
        except MissingError:
            if not force:
                raise

    def __repr__(self) -> str:
        return f"pyrunc.Volume({self.name!r})"
