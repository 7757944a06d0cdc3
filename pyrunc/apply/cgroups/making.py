"""Create the container's cgroup and set its limits, as plan/cgroups.py has decided.

Law 1: nothing is decided here, except by what only the kernel knows: which directories exist, and in which
order it accepts values that depend on each other. After a failure, what was made is removed. reasons.py finds
out why a write was refused.
"""

from __future__ import annotations

import os
from errno import EACCES, EBUSY, EINVAL, ENOENT, EPERM, EROFS

from pyrunc.apply.cgroups.cgroup import pids, read, somebody_elses
from pyrunc.errors import Failure, failing
from pyrunc.files import closing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.cgroup_plan import CgroupPlan, CgroupWrite

_DENIED = (EPERM, EACCES, EROFS)


def create(plan: CgroupPlan, found: list[str]) -> dict[str, str]:
    """Make the directories.

    Args:
        plan: the cgroups.
        found: is extended by the directories of the container that existed before.

    Returns:
        controller -> directory, as in plan.paths. Left out are those that an ordinary user may not make or
            use and has not asked for.

    Raises:
        Failure: one cannot be made, or one exists already and has processes or is frozen. What was made is
            removed.

    """
    made: list[str] = []
    if plan.unit is not None:
        from pyrunc.apply.cgroups import systemd

        systemd.start(plan)
    try:
        paths = _make_all(plan, made)
        if plan.unit is None:
            ours = {*made, *found}
            found[:] = [path for path in found if path not in made]
            theirs = (path for path in dict.fromkeys(paths.values()) if path not in ours)
            found += [path for path in theirs if somebody_elses(path)]
        if plan.rdt is not None:
            from pyrunc.apply import intel_rdt

            paths.update(intel_rdt.create(plan.rdt))
    except BaseException:
        for path in reversed(made):
            try:
                os.rmdir(path)
            except OSError:
                continue
        if plan.unit is not None:
            systemd.stop(plan.paths)
        raise
    return paths


def _make_all(plan: CgroupPlan, made: list[str]) -> dict[str, str]:
    """Make every directory; those that did not exist are appended to made."""
    paths: dict[str, str] = {}
    done: dict[str, bool] = {}
    for name in plan.roots:
        path = plan.paths[name]
        if path not in done:
            done[path] = _make(plan, name, path, made)
        if done[path]:
            paths[name] = path
    if "" in paths and (plan.version == 2 or plan.enable):
        from pyrunc.apply.cgroups import version_2

        version_2.enable(plan, paths[""])
    return paths


def _make(plan: CgroupPlan, name: str, path: str, made: list[str]) -> bool:
    """Make one directory with its parents; tell whether it exists now."""
    root = plan.roots[name]
    missing = [path]
    while True:
        try:
            os.mkdir(missing[-1], 0o755)
        except FileNotFoundError:
            parent = missing[-1].rpartition("/")[0]
            if len(parent) <= len(root):
                raise Failure(f"cgroup mount {root} is gone", errno=ENOENT) from None
            missing.append(parent)
            continue
        except FileExistsError:
            if missing[-1] == path:
                if not _may_join(name, path):
                    return _done_without(plan, name, path, EACCES)
                if plan.unit is None:
                    _check_unused(path)
        except OSError as exc:
            return _done_without(plan, name, missing[-1], exc.errno or 0)
        else:
            made.append(missing[-1])
        if name == "cpuset":
            from pyrunc.apply.cgroups import version_1

            version_1.seed_cpuset(missing[-1], root)
        missing.pop()
        if not missing:
            return True


def _done_without(plan: CgroupPlan, name: str, path: str, errno: int) -> bool:
    """Return False if the container can do without a cgroup that cannot be made or used.

    Raises:
        Failure: it needs the cgroup.

    """
    if errno in _DENIED and (plan.optional or name in plan.spared) and not _depends(plan, name):
        return False
    from pyrunc.apply.cgroups import reasons

    raise reasons.not_made(plan, path, errno) from None


def _may_join(name: str, path: str) -> bool:
    """Tell whether a process may be moved into an existing cgroup, which may be another user's."""
    file = "tasks" if name else "cgroup.procs"
    return os.access(f"{path}/{file}", os.W_OK, effective_ids=True)


def _depends(plan: CgroupPlan, name: str) -> bool:
    if name == "" and plan.needed:
        return True
    return any(write.controller == name and not write.optional for write in plan.writes)


def _check_unused(path: str) -> None:
    """Refuse a directory in use (runtime-spec: "check if the container cgroup is fit for purpose")."""
    found = pids({"": path})
    if found:
        raise Failure(f"container's cgroup is not empty: {len(found)} process(es) found in {path}")
    for file, words in (("freezer.state", (b"FROZEN", b"FREEZING")), ("cgroup.freeze", (b"1",))):
        if read(path, file).strip() in words:
            raise Failure(f"container's cgroup unexpectedly frozen: {path}")


def apply_limits(plan: CgroupPlan, paths: dict[str, str]) -> None:
    """Write every setting.

    To be called before the container's process joins, so that it never runs without its limits.

    Args:
        plan: the settings.
        paths: what create() returned.

    Raises:
        Failure: the kernel refuses one; with the place in config.json that asks for it.

    """
    if "" in paths and (plan.devices or plan.owner >= 0 or plan.check != (0, 0)):
        from pyrunc.apply.cgroups import version_2

        version_2.prepare(plan, paths[""])
    fds: dict[str, int] = {}
    try:
        later = _write_all(plan.writes, paths, fds)
        while later:
            # Refused as invalid: perhaps only until a related file has its new value.
            again = _write_all([write for write, _errno in later], paths, fds)
            if len(again) == len(later):
                write, errno = later[0]
                raise _refused(write, paths, errno)
            later = again
    finally:
        for fd in fds.values():
            os.close(fd)


def _write_all(
    writes: list[CgroupWrite],
    paths: dict[str, str],
    fds: dict[str, int],
) -> list[tuple[CgroupWrite, int]]:
    """Write, and return the settings that the kernel called invalid or busy, with its error number."""
    later = []
    for write in writes:
        path = paths.get(write.controller)
        if path is None:
            if write.optional == "denied":
                continue
            raise Failure(
                f"cannot set {write.controller} limit: container could not join or create cgroup",
                pointer=write.pointer,
            )
        fd = fds.get(path, -1)
        if fd < 0:
            with failing(f"open cgroup {path}"):
                fd = fds[path] = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        errno = _write(fd, write)
        if errno in (EINVAL, EBUSY):
            later.append((write, errno))
        elif errno:
            raise _refused(write, paths, errno)
    return later


def _write(directory: int, write: CgroupWrite) -> int:
    """Write one setting; return 0 or the kernel's error number."""
    value = write.value
    try:
        try:
            fd = os.open(write.file, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
        except FileNotFoundError:
            if write.other is None:
                raise
            file, value = write.other
            fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
        with closing(fd):
            for line in value.split("\n"):
                if line:
                    os.write(fd, os.fsencode(line))  # a value from a command line may be not UTF-8
    except OSError as exc:
        missing = exc.errno == ENOENT and write.optional
        denied = exc.errno in _DENIED and write.optional == "denied"
        return 0 if missing or denied else exc.errno or EINVAL
    return 0


def _refused(write: CgroupWrite, paths: dict[str, str], errno: int) -> Failure:
    from pyrunc.apply.cgroups import reasons

    return reasons.refused(write, paths, errno)
