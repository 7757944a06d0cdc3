"""Words of other container tools, and what to write with pyrunc instead.

Law 2, the slow path: used when a word is refused. Most of these words are Docker's. pyrunc has no images,
networks or logs, and config.json has what the options of `docker run` set.
"""

from __future__ import annotations

# A verb of another tool -> pyrunc's verb with that meaning.
SAME = {
    "ls": "list",
    "rm": "delete",
    "remove": "delete",
    "stats": "events",
    "top": "ps",
    "unpause": "resume",
}

_IMAGES = "pyrunc has no images: it runs bundles, directories with a config.json and a root file system"
_NETWORKS = (
    "pyrunc makes no networks: see /linux/namespaces in config.json, or use an engine (podman, docker)"
)

# A verb of another tool for which pyrunc has none -> what to do.
INSTEAD = {
    "attach": "pyrunc run stays in front of its container; pyrunc exec runs a further program in it",
    "build": _IMAGES,
    "commit": _IMAGES,
    "compose": "pyrunc runs one container at a time",
    "cp": "the files are in the directory that /root/path in config.json names; pyrunc state ID tells it",
    "diff": "with pyrunc run --overlay-dir DIR all that a container has written is in DIR",
    "image": _IMAGES,
    "images": _IMAGES,
    "import": _IMAGES,
    "info": "pyrunc features tells what this runtime can do, pyrunc version what it is",
    "load": _IMAGES,
    "login": _IMAGES,
    "logs": "pyrunc keeps no logs: a program's output goes where that of pyrunc run goes (> FILE)",
    "network": _NETWORKS,
    "port": _NETWORKS,
    "pull": _IMAGES,
    "push": _IMAGES,
    "rename": "an id stays: delete the container, and create it with another one",
    "restart": "pyrunc delete --force ID, then pyrunc run ID again",
    "rmi": _IMAGES,
    "save": _IMAGES,
    "search": _IMAGES,
    "tag": _IMAGES,
}

_TERMINAL = "a terminal is asked for by /process/terminal in config.json, and standard input is always passed"
_MEMORY = "limits stand in /linux/resources of config.json; pyrunc update changes them"
_CAPABILITIES = "the capabilities stand in /process/capabilities of config.json"

# Options of `docker run` -> what to do for pyrunc's create and run.
_RUN = {
    "add-host": "write the host into /etc/hosts of the root file system",
    "annotation": "annotations stand in /annotations of config.json",
    "cap-add": _CAPABILITIES,
    "cap-drop": _CAPABILITIES,
    "cpus": _MEMORY,
    "device": "devices stand in /linux/devices and /linux/resources/devices of config.json",
    "dns": "write the servers into /etc/resolv.conf of the root file system",
    "e": "variables stand in /process/env of config.json",
    "entrypoint": "the program is /process/args in config.json",
    "env": "variables stand in /process/env of config.json",
    "hostname": "the host name is /hostname in config.json",
    "i": _TERMINAL,
    "init": "the program of config.json is the container's first process",
    "interactive": _TERMINAL,
    "it": _TERMINAL,
    "label": "annotations stand in /annotations of config.json",
    "m": _MEMORY,
    "memory": _MEMORY,
    "name": "the name of a container is its id, the last word: pyrunc run ID",
    "net": _NETWORKS,
    "network": _NETWORKS,
    "P": _NETWORKS,
    "p": _NETWORKS,
    "pids-limit": _MEMORY,
    "privileged": "config.json says what a container may do; pyrunc explain describes each property",
    "publish": _NETWORKS,
    "pull": _IMAGES,
    "read-only": "write /root/readonly into config.json",
    "restart": "pyrunc does not watch containers: let systemd or an engine start them again",
    "rm": "leave it out: what pyrunc run made goes when the program has ended",
    "security-opt": "see seccomp, apparmorProfile and noNewPrivileges in config.json (pyrunc explain)",
    "t": _TERMINAL,
    "tty": _TERMINAL,
    "u": "the user is /process/user in config.json",
    "ulimit": "limits of a process stand in /process/rlimits of config.json",
    "user": "the user is /process/user in config.json",
    "w": "the working directory is /process/cwd of config.json",
    "workdir": "the working directory is /process/cwd of config.json",
}

_ALL_CONTAINERS = "pyrunc list shows all containers; pyrunc ps ID shows the processes of one"

# Verb -> option of another tool -> what to do.
OPTIONS: dict[str, dict[str, str]] = {
    "run": _RUN,
    "create": _RUN,
    "exec": {
        "i": "standard input is always passed: leave it out",
        "interactive": "standard input is always passed: leave it out",
        "it": "write -t: standard input is always passed",
        "privileged": "give capabilities one by one: --cap CAP",
        "w": "write --cwd DIR",
        "workdir": "write --cwd DIR",
    },
    "delete": {
        "rf": "write --force: nothing else is below a container",
        "fr": "write --force: nothing else is below a container",
    },
    "kill": {
        "s": "the signal comes after the id: pyrunc kill ID TERM",
        "signal": "the signal comes after the id: pyrunc kill ID TERM",
    },
    "list": {
        "a": "leave it out: stopped containers are listed, too",
        "all": "leave it out: stopped containers are listed, too",
    },
    "ps": {"a": _ALL_CONTAINERS, "all": _ALL_CONTAINERS, "aux": "options of ps come after the id"},
    "start": {
        "a": "pyrunc run creates a container, starts it and stays in front of it",
        "attach": "pyrunc run creates a container, starts it and stays in front of it",
        "i": "pyrunc run creates a container, starts it and stays in front of it",
        "b": "the bundle was named to create: write only the id",
        "bundle": "the bundle was named to create: write only the id",
    },
}


def option(verb: str, name: str) -> str:
    """Return what to do instead of an option of another tool, "" if nothing is known."""
    known = OPTIONS.get(verb, {})
    if name not in known and len(name) > 1 and set(name) <= set("itd") and "i" in name:
        name = "it"  # in any order, and with the d of --detach
    return known.get(name, "")
