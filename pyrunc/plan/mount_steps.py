"""The steps that mount something: one type for each kind of mount.

Law 1: as steps.py, of which they are a part. What follows from the options is in these fields, decided once
(plan/mounts.py): who carries a step out asks for its type and its fields, and never for the options.
"""

from __future__ import annotations

from pyrunc.plan.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.mount_options import Attributes, Options
    from pyrunc.plan.steps import IdMap


class Mount(Step):
    """One entry of `mounts` (or one of the several mounts a cgroup entry becomes): what all kinds have.

    Attributes:
        index: place in config.json's array.
        destination: path inside the root, without anything that could be left out: the one that is compared.
        spelled: how config.json has it, for messages; "" if it is the same.
        options: what the options say, for readers; what is done is in all the other fields.
        attributes: what is set on the mount. Mounts with the same options share one record: never changed.
        no_symlink: the destination must be reached without any symlink (/proc, /sys: CVE-2019-19921).
        dest_nofollow: a symlink at the end of the destination is mounted on, not followed.

    """

    kind = ""
    index: int
    destination: str
    source: str
    fstype: str
    options: Options
    attributes: Attributes
    no_symlink: bool = False
    dest_nofollow: bool = False
    spelled: str = ""

    @property
    def full_source(self) -> str:
        """The source, down to the part of it that is meant."""
        return self.source


class Bind(Mount):
    """A bind whose source the parent opens on the host, before there is an init.

    Attributes:
        subpath: directory inside the source that is meant; the source is a volume, so its content is hostile.
        src_nofollow: a symlink at the end of the source is mounted, not followed.
        copy_symlink: a source that is a symlink is copied instead.

    """

    kind = "bind"
    subpath: str = ""
    src_nofollow: bool = False
    copy_symlink: bool = False

    @property
    def full_source(self) -> str:
        """The path of what is mounted."""
        return f"{self.source}/{self.subpath}" if self.subpath else self.source


class InnerBind(Mount):
    """A bind whose source is inside the root, as the mounts before it have left it; see Bind."""

    kind = "inner-bind"
    src_nofollow: bool = False


class CgroupBind(Mount):
    """A bind of a cgroup of the host's, which exists only once the container's cgroups are made.

    instead is its source if the container does without the cgroup that it would show.
    """

    kind = "late-bind"
    instead: str = ""


class FileSystem(Mount):
    """A new file system, made inside the container's namespaces.

    Attributes:
        data: the words for the file system itself.
        readonly: the word before them where the file system has a read-only state of its own: "ro" or "".
        label: SELinux label to give the root of a file system that cannot be mounted with one.
        copy_up: what the mount covers is copied into it first.
        readonly_last: read-only is set after everything else: mount points and nodes are still to be made.

    """

    kind = "new"
    data: tuple[str, ...] = ()
    readonly: str = ""
    label: str = ""
    copy_up: bool = False
    readonly_last: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """All words for the file system."""
        return (self.readonly, *self.data) if self.readonly else self.data


WRITABLE = ("upperdir", "workdir")  # an overlay's parameters for the layer that is written to


class Overlay(FileSystem):
    """A new overlay.

    Attributes:
        layers: its directories, highest first: (parameter, path, whether it is inside the root).
        layer_fds: the kernel takes descriptors as layers (Linux 6.13), not only their names.
        early: the parent makes it, because all layers are directories of the host.

    """

    layers: tuple[tuple[str, str, bool], ...] = ()
    layer_fds: bool = True
    early: bool = False

    def lowerdir(self, names: list[str]) -> str:
        """Return the value of lowerdir=, with a name for each layer."""
        text = ""
        for (name, _, _), each in zip(self.layers, names, strict=True):
            if name not in WRITABLE:
                text += (("::" if name == "datadir+" else ":") if text else "") + each
        return text


class AttachRoot(Step):
    """Attach a private copy of the root file system's tree over itself, or an overlay of it.

    layer is the directory of --overlay, made before and removed with the container; layer_ids the mapping
    through which the overlay sees the root file system, None for none.
    """

    path: str
    propagation: int
    overlay: Overlay | None = None
    layer: str = ""
    layer_ids: tuple[IdMap, IdMap] | None = None


class Remount(Mount):
    """Change the mount that is at the destination by now."""

    kind = "remount"


class Reconfigure(Remount):
    """Change the file system that is mounted at the destination, and the mount.

    The fields are those of FileSystem; readonly may be "rw" as well.
    """

    data: tuple[str, ...] = ()
    readonly: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """All words for the file system."""
        return (self.readonly, *self.data) if self.readonly else self.data
