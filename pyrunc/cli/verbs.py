"""The table of the command line: every global option, every verb, every option of a verb.

Law 2: the only source. cli/match.py reads it in microseconds, cli/app.py makes help and error messages from
it, verbs/completion.py the shells' completions. A new verb is one entry here and one module
pyrunc/verbs/<verb>.py. This module is on the hot path, so it has only constants. It is one module, because to
find and load a second one would take longer than the whole table takes to run.

An option is (names, kind, default, metavar, help). The names are without dashes, the long one first; its
attribute is the long name with "_" for "-". Without a help text it is accepted, but not listed. A verb is
(summary, usage, positionals, least, most, stops, options): the attributes for its positional words, the least
and the greatest number of words (-1: the last attribute is a list of all that remain), and whether options
end at the first word. cli/rows.py gives these parts names for all but the matcher. A verb of two words
("volume ls") belongs to a group, which has one module, pyrunc/verbs/volume.py.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Option: TypeAlias = tuple[tuple[str, ...], int, str | int | float | bool | tuple[()] | None, str, str]
    Verb: TypeAlias = tuple[str, str, tuple[str, ...], int, int, bool, tuple[Option, ...]]

# Kinds of options. CHOICE has its words in the metavar ("table|json"). SECONDS is written as a duration
# ("5s"). OPTIONAL has a value only after "=", and means "-" without one.
FLAG, TEXT, MANY, INTEGER, INTEGERS, SECONDS, CHOICE, TRISTATE, OPTIONAL = range(9)

GLOBALS: tuple[Option, ...] = (
    (("debug",), FLAG, False, "", "log what is done, and show a traceback when something fails"),
    (
        ("log",),
        TEXT,
        None,
        "FILE",
        "append log records to FILE, or to syslog:ID or journald:ID (default: stderr)",
    ),
    (("log-format",), CHOICE, "text", "text|json", "how log records are written"),
    (("log-level",), CHOICE, None, "error|warning|debug", "least severe record to log"),
    (("root",), TEXT, None, "DIR", "where the containers' state is kept (default: /run/pyrunc)"),
    (("volume-root",), TEXT, None, "DIR", "where volumes are kept (default: /var/lib/pyrunc/volumes)"),
    (
        ("systemd-cgroup",),
        FLAG,
        False,
        "",
        'let systemd manage cgroups; cgroupsPath is then "slice:prefix:name"',
    ),
    (("cgroup-manager",), CHOICE, None, "cgroupfs|systemd|disabled", "who makes the cgroups"),
    (("rootless",), TRISTATE, "auto", "true|false|auto", "ignore missing permission for cgroups"),
    (
        ("trace",),
        OPTIONAL,
        None,
        "FILE",
        "of create, run and exec: say what each step of the plan took, on stderr or appended to FILE",
    ),
    (("color",), CHOICE, None, "auto|always|never", "colours for people (default: auto, on a terminal)"),
    # runc before 1.2 had it; engines of that time still use it.
    (("criu",), TEXT, None, "PATH", ""),
)

# These two end the parsing, so they are no attributes of a command.
HELP: Option = (("help", "h"), FLAG, False, "", "show this help")
VERSION: Option = (("version", "v", "V"), FLAG, False, "", "show the version")

_BUNDLE: Option = (("bundle", "b"), TEXT, None, "DIR", "directory of the bundle (default: the current one)")
_LAYER_ROOT: Option = (
    ("layer-root",),
    TEXT,
    None,
    "DIR",
    "where shared layers are kept (default: /var/lib/pyrunc/layers)",
)
_CONFIG: Option = (("config", "f"), TEXT, None, "FILE", "read this file instead of the bundle's config.json")
_CONSOLE: Option = (
    ("console-socket",),
    TEXT,
    None,
    "SOCKET",
    "Unix socket that is sent the terminal's master side",
)
_PIDFD: Option = (
    ("pidfd-socket",),
    TEXT,
    None,
    "SOCKET",
    "Unix socket that is sent a pidfd of the new process",
)
_PID_FILE: Option = (("pid-file",), TEXT, None, "FILE", "file to write the new process's id to")
_NO_PIVOT: Option = (
    ("no-pivot",),
    FLAG,
    False,
    "",
    "move the root mount instead of pivot_root (rootfs on a ramdisk)",
)
_NO_KEYRING: Option = (("no-new-keyring",), FLAG, False, "", "keep the caller's session keyring")
_PRESERVE: Option = (
    ("preserve-fds",),
    INTEGER,
    0,
    "N",
    "pass N more descriptors, from 3 on (after $LISTEN_FDS)",
)
_SUBREAPER: Option = (("no-subreaper",), FLAG, False, "", "do not become the reaper of orphaned processes")
_OVERLAY: tuple[Option, ...] = (
    (("overlay",), FLAG, False, "", "write to a layer over the root file system, deleted with the container"),
    (("overlay-dir",), TEXT, None, "DIR", "keep that layer in DIR, not in the container's state directory"),
)
_DETACH: Option = (("detach", "d"), FLAG, False, "", "return at once, leave the process running")
_FORMAT: Option = (("format", "f"), CHOICE, "table", "table|json", "how to print")
_JSON: Option = (("json",), FLAG, False, "", "print JSON, as --format json does")
_REGEX: Option = (
    ("regex", "r"),
    FLAG,
    False,
    "",
    "the id is a regular expression, for all containers it matches",
)

# Options of both checkpoint and restore. An engine builds both command lines from one set of options, so each
# also accepts, and ignores, those of the other.
_CRIU: tuple[Option, ...] = (
    (("image-path",), TEXT, None, "DIR", "directory of the image files (default: ./checkpoint)"),
    (("work-path",), TEXT, None, "DIR", "directory for CRIU's log (default: that of the image files)"),
    (("tcp-established",), FLAG, False, "", "allow open TCP connections"),
    (("ext-unix-sk",), FLAG, False, "", "allow Unix sockets connected to something outside"),
    (("shell-job",), FLAG, False, "", "allow a terminal of the caller's session"),
    (("file-locks",), FLAG, False, "", "allow held file locks"),
    (("manage-cgroups-mode",), CHOICE, None, "soft|full|strict|ignore", "what CRIU does about cgroups"),
    (("empty-ns",), MANY, (), "network", "leave this namespace empty; may be repeated"),
    (("auto-dedup",), FLAG, False, "", "keep a page of memory in one image only"),
    (("lazy-pages",), FLAG, False, "", "bring memory over only when it is touched (userfaultfd)"),
    (("network-lock",), CHOICE, None, "iptables|nftables|skip", "how CRIU blocks the network"),
)
_PARENT = ("parent-path",), TEXT, None, "DIR"
_PAGES = ("page-server",), TEXT, None, "ADDRESS:PORT"
_STATUS = ("status-fd",), INTEGER, None, "FD"

_MOUNTS: tuple[Option, ...] = (
    (
        ("volume", "v"),
        MANY,
        (),
        "[SOURCE:]DEST[:OPTIONS]",
        "mount a host path, a volume, or a new anonymous volume; may be repeated",
    ),
    (("mount",), MANY, (), "type=TYPE,...", "mount a bind, a volume or a tmpfs; may be repeated"),
    (("tmpfs",), MANY, (), "DEST[:OPTIONS]", "mount an empty tmpfs; may be repeated"),
    (
        ("volumes-from",),
        MANY,
        (),
        "CONTAINER[:ro|rw]",
        "mount what another container has mounted; may be repeated",
    ),
)

_ONE = "<container-id>"
# Usage, positionals, least, most and stops, of verbs for one container, and of those without words.
_CONTAINER = (_ONE, ("id",), 1, 1, False)
_NO_WORDS = ("", (), 0, 0, False)
_FILTER: Option = (("filter",), MANY, (), "KEY=VALUE", "only those that fit; may be repeated")

# The first words of verbs with two words.
GROUPS: dict[str, str] = {
    "volume": "manage volumes: data that outlives containers",
    "layer": "manage layers: of images, unpacked once and shared by bundles",
}

VERBS: dict[str, Verb] = {
    "create": (
        "create a container",
        *_CONTAINER,
        (
            _BUNDLE,
            _CONFIG,
            _CONSOLE,
            _PIDFD,
            _PID_FILE,
            _NO_PIVOT,
            _NO_KEYRING,
            _PRESERVE,
            _SUBREAPER,
            *_OVERLAY,
            *_MOUNTS,
        ),
    ),
    "start": ("run the program of a created container", *_CONTAINER, ()),
    "run": (
        "create a container and start it",
        *_CONTAINER,
        (
            _BUNDLE,
            _CONFIG,
            _CONSOLE,
            _PIDFD,
            _PID_FILE,
            _DETACH,
            (("keep",), FLAG, False, "", "keep state and cgroup after the container has exited"),
            _SUBREAPER,
            _NO_PIVOT,
            _NO_KEYRING,
            _PRESERVE,
            *_OVERLAY,
            *_MOUNTS,
            (("rm-volumes",), FLAG, False, "", "delete its anonymous volumes with the container"),
        ),
    ),
    "exec": (
        "run one more process in a container",
        "<container-id> <command> [arguments...] | --process FILE <container-id>",
        ("id", "args"),
        1,
        -1,
        True,
        (
            (("process", "p"), TEXT, None, "FILE", "read the whole process object from FILE (JSON)"),
            _DETACH,
            (("tty", "t"), FLAG, False, "", "give the process a terminal"),
            _CONSOLE,
            _PIDFD,
            _PID_FILE,
            (("cwd",), TEXT, None, "DIR", "working directory in the container"),
            (("env", "e"), MANY, (), "NAME=VALUE", "set an environment variable; may be repeated"),
            (("user", "u"), TEXT, None, "UID[:GID]", "user, and group, to run as"),
            (("additional-gids", "g"), INTEGERS, (), "GID", "one more group; may be repeated"),
            (("cap", "c"), MANY, (), "CAP", "one more capability; may be repeated"),
            (("no-new-privs",), FLAG, False, "", "set no_new_privs for the process"),
            (("process-label",), TEXT, None, "LABEL", "SELinux label of the process"),
            (("apparmor",), TEXT, None, "PROFILE", "AppArmor profile of the process"),
            (("cgroup",), MANY, (), "[CONTROLLER:]PATH", "run in this sub-cgroup; may be repeated"),
            (("ignore-paused",), FLAG, False, "", "run even in a paused container"),
            _PRESERVE,
        ),
    ),
    "kill": (
        "send a signal (default: SIGTERM) to a container's init process",
        "<container-id> [signal]",
        ("id", "signal"),
        1,
        2,
        False,
        (
            (("all", "a"), FLAG, False, "", "send it to every process of the container"),
            _REGEX,
        ),
    ),
    "delete": (
        "remove a container that has stopped, or was never started",
        *_CONTAINER,
        (
            (("force", "f"), FLAG, False, "", "kill it first if it still runs; no error if there is none"),
            _REGEX,
            (("volumes", "v"), FLAG, False, "", "remove the anonymous volumes that were made for it, too"),
        ),
    ),
    "stop": (
        "ask a container's program to end, and kill it if it does not",
        *_CONTAINER,
        (
            (
                ("time", "t"),
                INTEGER,
                10,
                "SECONDS",
                "how long to wait before it is killed; 0 kills at once, -1 never",
            ),
            (
                ("signal", "s"),
                TEXT,
                None,
                "SIGNAL",
                "ask with this one (default: what its configuration says, else TERM)",
            ),
        ),
    ),
    "wait": ("wait until a container has ended, and print its exit status", *_CONTAINER, ()),
    "state": ("print the state of a container", *_CONTAINER, ()),
    "inspect": ("print all that is known of a container, as JSON", *_CONTAINER, ()),
    "list": (
        "list the containers under --root",
        *_NO_WORDS,
        (
            _FORMAT,
            _JSON,
            (("quiet", "q"), FLAG, False, "", "print only the ids"),
        ),
    ),
    "ps": (
        "list the processes of a container",
        "<container-id> [ps options]",
        ("id", "args"),
        1,
        -1,
        True,
        (_FORMAT, _JSON),
    ),
    "pause": ("freeze all processes of a container", *_CONTAINER, ()),
    "resume": ("let a paused container go on", *_CONTAINER, ()),
    "update": (
        "change the resource limits of a container",
        *_CONTAINER,
        (
            (
                ("resources", "r"),
                TEXT,
                None,
                "FILE",
                "linux.resources to apply (JSON; - is stdin); rest is ignored",
            ),
            (("blkio-weight",), INTEGER, None, "N", "relative weight of block I/O, 10 to 1000"),
            (("cpu-period",), TEXT, None, "USEC", "length of a CFS period"),
            (("cpu-quota",), TEXT, None, "USEC", "CPU time per period"),
            (("cpu-burst",), TEXT, None, "USEC", "CPU time that may be saved up beyond the quota"),
            (("cpu-share",), TEXT, None, "N", "relative share of CPU time"),
            (("cpu-rt-period",), TEXT, None, "USEC", "length of a realtime period"),
            (("cpu-rt-runtime",), TEXT, None, "USEC", "realtime CPU time per period"),
            (("cpu-idle",), TEXT, None, "0|1", "1: run only when no one else wants the CPU"),
            (("cpuset-cpus",), TEXT, None, "LIST", "CPUs to run on"),
            (("cpuset-mems",), TEXT, None, "LIST", "memory nodes to allocate from"),
            (("memory",), TEXT, None, "BYTES", "memory limit; k, m, g may follow the number, -1 is none"),
            (("memory-reservation",), TEXT, None, "BYTES", "memory that is reclaimed last"),
            (("memory-swap",), TEXT, None, "BYTES", "limit of memory and swap together; -1 is none"),
            (("kernel-memory",), TEXT, None, "BYTES", ""),
            (("kernel-memory-tcp",), TEXT, None, "BYTES", ""),
            (("pids-limit",), INTEGER, None, "N", "how many processes it may have; -1 is no limit"),
            (("l3-cache-schema",), TEXT, None, "SCHEMA", "Intel RDT cache allocation"),
            (("mem-bw-schema",), TEXT, None, "SCHEMA", "Intel RDT memory bandwidth allocation"),
        ),
    ),
    "events": (
        "print resource usage and out-of-memory events of a container",
        *_CONTAINER,
        (
            (("interval",), SECONDS, 5.0, "DURATION", "time between two records"),
            (("stats",), FLAG, False, "", "print one record and end"),
        ),
    ),
    "checkpoint": (
        "write a running container to image files, with CRIU",
        *_CONTAINER,
        (
            *_CRIU,
            (*_PARENT, "images of an earlier --pre-dump, relative to --image-path"),
            (("leave-running",), FLAG, False, "", "leave the container running afterwards"),
            (("pre-dump",), FLAG, False, "", "write only the memory, and leave the container running"),
            (("tcp-skip-in-flight",), FLAG, False, "", "skip TCP connections that are not established yet"),
            (("link-remap",), FLAG, False, "", "link deleted files back where possible"),
            (*_PAGES, "send the memory to this page server"),
            (*_STATUS, "CRIU writes \\0 to this descriptor once --lazy-pages is ready"),
        ),
    ),
    "restore": (
        "bring a container back from the image files of a checkpoint",
        *_CONTAINER,
        (
            _BUNDLE,
            _CONFIG,
            _CONSOLE,
            _PID_FILE,
            _DETACH,
            _SUBREAPER,
            *_CRIU,
            (("tcp-close",), FLAG, False, "", "restore TCP connections closed"),
            (("lsm-profile",), TEXT, None, "TYPE:NAME", "LSM profile for the processes"),
            (("lsm-mount-context",), TEXT, None, "CONTEXT", "LSM context for the mounts"),
            (("no-pivot",), FLAG, False, "", ""),
            (("no-new-keyring",), FLAG, False, "", ""),
            (*_PARENT, ""),
            (("leave-running",), FLAG, False, "", ""),
            (("pre-dump",), FLAG, False, "", ""),
            (("tcp-skip-in-flight",), FLAG, False, "", ""),
            (("link-remap",), FLAG, False, "", ""),
            (*_PAGES, ""),
            (*_STATUS, ""),
        ),
    ),
    "spec": (
        "write a config.json to begin with",
        *_NO_WORDS,
        (
            (("bundle", "b"), TEXT, None, "DIR", "directory to write it to (default: the current one)"),
            (("file", "f"), TEXT, None, "FILE", "name of the file (default: config.json)"),
            (("rootless",), FLAG, False, "", "one that works without root's rights"),
        ),
    ),
    "features": ("print what this runtime supports, as JSON", *_NO_WORDS, ()),
    "bundle": (
        "make a bundle of an image: an OCI layout, or what docker save or podman save writes",
        "<image>[:tag] <directory>",
        ("image", "directory"),
        2,
        2,
        False,
        (
            (
                ("args",),
                MANY,
                (),
                "WORDS",
                "the command in place of the image's, split as a shell does; may be repeated",
            ),
            (("user", "u"), TEXT, None, "USER[:GROUP]", "user, and group, in place of the image's"),
            (("tty", "t"), FLAG, False, "", "give the process a terminal"),
            (
                ("platform",),
                TEXT,
                None,
                "OS/ARCH[/VARIANT]",
                "which of several images (default: this machine's)",
            ),
            (("shared-layers",), FLAG, False, "", "unpack each layer once, for all bundles that have it"),
            _LAYER_ROOT,
        ),
    ),
    "validate": (
        "check a config.json and report everything that is wrong with it",
        "[file]",
        ("file",),
        0,
        1,
        False,
        (
            _BUNDLE,
            (("strict",), FLAG, False, "", "let warnings make the exit status 1, too (for CI)"),
            (("format",), *_FORMAT[1:]),
            _JSON,
        ),
    ),
    "explain": (
        "tell what a property of config.json means, or what a container may do",
        "</pointer> | <property> | <container-id>",
        ("topic",),
        1,
        1,
        False,
        (
            (("bundle", "b"), TEXT, None, "DIR", "show what stands there in this bundle's config.json, too"),
            (("format",), *_FORMAT[1:]),
            _JSON,
        ),
    ),
    "plan": (
        "print the steps a container would be made with, and do none of them",
        *_NO_WORDS,
        (
            _BUNDLE,
            _CONFIG,
            _NO_PIVOT,
            _NO_KEYRING,
            *_MOUNTS,
            *_OVERLAY,
            (
                ("program",),
                FLAG,
                False,
                "",
                "print below each step what the init program does for it, numbered in its order",
            ),
            (("format",), *_FORMAT[1:]),
            _JSON,
        ),
    ),
    "mounts": (
        "print the mounts of a container, compare them with its configuration, or change them",
        "<container-id> | add|remove <container-id> <file>",
        ("id", "args"),
        1,
        -1,
        False,
        (
            (("format",), *_FORMAT[1:]),
            _JSON,
            (
                ("check",),
                FLAG,
                False,
                "",
                "print what differs from the configuration; if anything does, exit with 1",
            ),
            (
                ("add",),
                MANY,
                (),
                "MOUNT",
                "mount type=bind,src=PATH,dst=PATH or SOURCE:DEST[:OPTIONS]; may be repeated",
            ),
            (("remove",), MANY, (), "DEST", "unmount DEST and all below it; may be repeated"),
            (("force",), FLAG, False, "", "also over a mount, or one that is not the configuration's"),
        ),
    ),
    "volume create": (
        "make a volume, unless it is there",
        "[name]",
        ("name",),
        0,
        1,
        False,
        (
            (("label",), MANY, (), "KEY=VALUE", "note something about it; may be repeated"),
            (("driver", "d"), TEXT, "local", "NAME", "who keeps it; there is only local"),
        ),
    ),
    "volume ls": (
        "list volumes",
        *_NO_WORDS,
        (
            ((*_FILTER[0], "f"), *_FILTER[1:4], "dangling=true, label=KEY[=VALUE], name=PART, driver=local"),
            (("format",), *_FORMAT[1:]),
            _JSON,
            (("quiet", "q"), FLAG, False, "", "print only the names"),
        ),
    ),
    "volume inspect": ("print all about volumes, as JSON", "<name>...", ("names",), 1, -1, False, ()),
    "volume rm": (
        "remove volumes that no container uses",
        "<name>...",
        ("names",),
        1,
        -1,
        False,
        ((("force", "f"), FLAG, False, "", "no error if there is none"),),
    ),
    "volume prune": (
        "remove all anonymous volumes that no container uses",
        *_NO_WORDS,
        (
            (("all", "a"), FLAG, False, "", "those with a name as well"),
            (("dry-run",), FLAG, False, "", "print what would be removed, and remove nothing"),
            ((*_FILTER[0],), *_FILTER[1:4], "label=KEY[=VALUE], label!=KEY[=VALUE]"),
            (("force", "f"), FLAG, False, "", "do not ask first"),
        ),
    ),
    "layer ls": (
        "list the layers that bundles share",
        *_NO_WORDS,
        (
            (("format",), *_FORMAT[1:]),
            _JSON,
            (("quiet", "q"), FLAG, False, "", "print only the chain ids"),
            _LAYER_ROOT,
        ),
    ),
    "layer prune": (
        "remove the layers that no bundle and no container uses",
        *_NO_WORDS,
        (
            (("dry-run",), FLAG, False, "", "print what would be removed, and remove nothing"),
            _LAYER_ROOT,
        ),
    ),
    "doctor": (
        "tell whether this machine can run containers, and what to do about it",
        *_NO_WORDS,
        ((("format",), *_FORMAT[1:]), _JSON),
    ),
    "completion": ("print the completions for a shell", "[bash|zsh|fish]", ("shell",), 0, 1, False, ()),
    "version": ("print the version", *_NO_WORDS, ()),
}
