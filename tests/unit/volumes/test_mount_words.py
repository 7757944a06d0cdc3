"""The words of --mount: Docker's and Podman's keys, and an error of one line for wrong ones."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.volumes.grammar import Request
from pyrunc.volumes.mount_words import KEYS, parse_mount, spell, split

BIND: dict[str, Any] = {"kind": "bind", "source": "/srv"}
VOL: dict[str, Any] = {"kind": "volume", "source": "vol"}

MOUNTS: list[tuple[str, dict[str, Any]]] = [
    ("dst=/x", {"kind": "volume"}),
    ("type=volume,target=/x", {"kind": "volume"}),
    ("src=vol,dst=/x", VOL),
    ("source=vol,destination=/x,readonly", VOL | {"mode": "ro"}),
    ("src=vol,dst=/x,ro=false", VOL | {"mode": "rw"}),
    ("src=vol,dst=/x,readonly=true", VOL | {"mode": "ro"}),
    ("src=vol,dst=/x,rw", VOL | {"mode": "rw"}),
    ("src=vol,dst=/x,rro", VOL | {"mode": "rro"}),
    ("src=vol,dst=/x,volume-nocopy", VOL | {"nocopy": True}),
    ("src=vol,dst=/x,volume-nocopy=false", VOL),
    ("src=vol,dst=/x,volume-nocopy=true,bind-selinux-opts=z", VOL | {"nocopy": True, "relabel": "z"}),
    ("src=vol,dst=/x,volume-subpath=a/b", VOL | {"subpath": "a/b"}),
    ("src=vol,dst=/x,subpath=a", VOL | {"subpath": "a"}),
    ("src=vol,dst=/x,volume-driver=local", VOL),
    ("src=vol,dst=/x,volume-label=a=b,volume-label=c", VOL | {"labels": ("a=b", "c")}),
    ("type=bind,src=/srv,dst=/x", BIND),
    ("type=bind,source=./y,target=/x", BIND | {"source": "./y"}),
    ("type=bind,src=/srv,dst=/x,bind-propagation=rslave", BIND | {"propagation": "rslave"}),
    ("type=bind,src=/srv,dst=/x,relabel=shared", BIND | {"relabel": "z"}),
    ("type=bind,src=/srv,dst=/x,relabel=private", BIND | {"relabel": "Z"}),
    ("type=bind,src=/srv,dst=/x,bind-nonrecursive", BIND | {"recursion": "off"}),
    ("type=bind,src=/srv,dst=/x,bind-recursive=disabled", BIND | {"recursion": "off"}),
    ("type=bind,src=/srv,dst=/x,bind-recursive=disabled,bind-nonrecursive", BIND | {"recursion": "off"}),
    ("type=bind,src=/srv,dst=/x,bind-recursive=enabled", BIND),
    ("type=bind,src=/srv,dst=/x,ro,bind-recursive=writable", BIND | {"mode": "ro", "recursion": "writable"}),
    ("type=bind,src=/srv,dst=/x,ro,bind-recursive=readonly", BIND | {"mode": "rro"}),
    (
        "type=bind,src=/srv,dst=/x,ro,bind-recursive=readonly,bind-propagation=rprivate",
        BIND | {"mode": "rro", "propagation": "rprivate"},
    ),
    ("type=bind,src=/srv,dst=/x,bind-create-src", BIND | {"create": True}),
    ("type=bind,src=/srv,dst=/x,no-dereference", BIND | {"nofollow": True}),
    ("type=bind,src=/srv,dst=/x,U=true", BIND | {"chown": True}),
    ("type=bind,src=/srv,dst=/x,chown", BIND | {"chown": True}),
    ("type=bind,src=/srv,dst=/x,idmap", BIND | {"idmap": ""}),
    ("type=bind,src=/srv,dst=/x,idmap=true", BIND | {"idmap": ""}),
    ("type=bind,src=/srv,dst=/x,idmap=false", BIND),
    ("type=bind,src=/srv,dst=/x,idmap=uids=0-1-1;gids=0-1-1", BIND | {"idmap": "uids=0-1-1;gids=0-1-1"}),
    ("type=bind,src=/srv,dst=/x,consistency=cached", BIND),
    ("type=bind,src=/srv,dst=/x,noexec,nodev,suid", BIND | {"flags": ("noexec", "nodev", "suid")}),
    (
        "type=bind,src=/srv,dst=/x,overlay,upperdir=/u,workdir=/w",
        BIND | {"overlay": True, "upper": "/u", "work": "/w"},
    ),
    ('type=bind,"src=/a,b",dst=/x', BIND | {"source": "/a,b"}),
    ('type=bind,"src=/a""b",dst=/x', BIND | {"source": '/a"b'}),
    ("type=bind,src=/a:b=c,dst=/x", BIND | {"source": "/a:b=c"}),
    ("type=tmpfs,dst=/x", {"kind": "tmpfs"}),
    ("type=tmpfs,dst=/x,tmpfs-size=64m", {"kind": "tmpfs", "flags": ("size=64m",)}),
    ("type=tmpfs,dst=/x,tmpfs-size=64MiB", {"kind": "tmpfs", "flags": ("size=64M",)}),
    ("type=tmpfs,dst=/x,tmpfs-size=64mb", {"kind": "tmpfs", "flags": ("size=64m",)}),
    ("type=tmpfs,dst=/x,tmpfs-size=1048576", {"kind": "tmpfs", "flags": ("size=1048576",)}),
    ("type=tmpfs,dst=/x,tmpfs-mode=0700,ro", {"kind": "tmpfs", "flags": ("ro", "mode=0700")}),
    ("type=tmpfs,dst=/x,noswap,notmpcopyup", {"kind": "tmpfs", "flags": ("notmpcopyup", "noswap")}),
    ("type=tmpfs,dst=/x,tmpfs-opt=uid=5,tmpfs-opt=exec", {"kind": "tmpfs", "flags": ("uid=5", "exec")}),
]


@pytest.mark.parametrize(("text", "fields"), MOUNTS)
def test_what_mount_means(text: str, fields: dict[str, Any]) -> None:
    request = parse_mount(text)
    assert request == Request(destination="/x", **fields)
    assert parse_mount(spell(request)) == request


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is nothing in it"),
        (",", "nothing between two commas"),
        ("type=volume,,dst=/x", "nothing between two commas"),
        ("type=volume", "target is required"),
        ("type=nfs,dst=/x", 'type "nfs" is not known; use bind, volume or tmpfs'),
        ("type=bind,type=volume,dst=/x,src=/a", '"type" is given twice'),
        ("dst=/x,target=/y", '"target" is given twice'),
        ("dst=x", "mount path must be absolute"),
        ("dst=/", "destination can't be '/'"),
        ("dts=/x", 'unexpected key "dts"; did you mean "dst"?'),
        ("type=bind,src=/a,dst=/x,bind-propogation=shared", 'did you mean "bind-propagation"?'),
        ("type=bind,dst=/x", "a bind mount needs a source"),
        ("type=bind,src=a,dst=/x", "use an absolute path or ./a"),
        ("type=bind,src=/a,dst=/x,bind-propagation=up", "bind-propagation is one of"),
        ("type=bind,src=/a,dst=/x,bind-recursive=maybe", "bind-recursive is one of"),
        ("type=bind,src=/a,dst=/x,bind-recursive=readonly", "bind-recursive=readonly requires readonly"),
        ("type=bind,src=/a,dst=/x,bind-recursive=writable", "bind-recursive=writable requires readonly"),
        (
            "type=bind,src=/a,dst=/x,ro,bind-recursive=readonly,bind-propagation=shared",
            "requires bind-propagation=rprivate",
        ),
        ("type=bind,src=/a,dst=/x,bind-recursive=enabled,bind-nonrecursive", "contradicts"),
        ("type=bind,src=/a,dst=/x,volume-nocopy", 'cannot mix "volume-nocopy" with mount type "bind"'),
        ("src=vol,dst=/x,bind-propagation=rslave", 'cannot mix "bind-propagation" with mount type "volume"'),
        ("type=tmpfs,src=/a,dst=/x", 'cannot mix "src" with mount type "tmpfs"'),
        ("src=vol,dst=/x,tmpfs-size=1m", 'cannot mix "tmpfs-size" with mount type "volume"'),
        ("src=/home,dst=/aaa", "includes invalid characters"),
        ("src=/home,dst=/aaa", "add type=bind"),
        ("/etc:/x", "SOURCE:DESTINATION is what --volume takes"),
        ("src=vol,dst=/x,ro=maybe", "invalid value for readonly"),
        ("src=vol,dst=/x,ro,rw", "readonly and rw contradict"),
        ("src=vol,dst=/x,exec,noexec", '"exec" and "noexec" contradict each other'),
        ("src=vol,dst=/x,relabel=both", "relabel is shared or private"),
        ("src=vol,dst=/x,volume-subpath=/a", "must be a relative path"),
        ("src=vol,dst=/x,volume-subpath=../a", "must be a relative path"),
        ("src=vol,dst=/x,volume-subpath=.", "must be a relative path"),
        ("dst=/x,volume-subpath=a", "needs a volume that exists"),
        ("src=vol,dst=/x,volume-driver=nfs", 'no volume driver "nfs"'),
        ("src=vol,dst=/x,volume-opt=type=nfs", "have no options"),
        ("src=vol,dst=/x,idmap=1-1-1", "must look like"),
        ("src=vol,dst=/x,upperdir=/u", "belong to an overlay"),
        ("src=vol,dst=/x,overlay,upperdir=u,workdir=/w", "not an absolute path"),
        ("type=tmpfs,dst=/x,tmpfs-size=much", "is not a size"),
        ("type=tmpfs,dst=/x,tmpfs-mode=rwx", "is not a file mode"),
        ("type=tmpfs,dst=/x,tmpfs-opt=bind", "is no option of a tmpfs"),
        ('type=bind,src="/a",dst=/x', "a double quote must begin a field"),
        ('"type=bind', "is not closed"),
        ('"type=bind"x', "after a closing quote comes a comma"),
    ],
)
def test_what_mount_refuses(text: str, said: str) -> None:
    with pytest.raises(Failure) as caught:
        parse_mount(text)
    assert said in caught.value.text()
    assert "\n" not in caught.value.text()


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("type", "volume-opt")])
def test_every_key_is_taken_where_it_belongs(key: str) -> None:
    values = ("", "true", "/srv", "vol", "local", "shared", "rprivate", "64m", "1777", "uid=1", "enabled")
    begin = {"bind": "type=bind", "volume": "type=volume", "tmpfs": "type=tmpfs"}
    for kind in KEYS[key][1]:
        taken = 0
        for value in values:
            fields = [begin[kind], f"{key}={value}"]
            fields += [] if KEYS[key][0] == "destination" else ["target=/x"]
            fields += ["src=/y"] if kind == "bind" and KEYS[key][0] != "source" else []
            fields += ["src=vol"] if KEYS[key][0] == "subpath" else []
            fields += ["overlay", "upperdir=/u"] if key == "workdir" else []
            fields += ["overlay", "workdir=/w"] if key == "upperdir" else []
            try:
                parse_mount(",".join(fields))
            except Failure:
                continue
            taken += 1
        assert taken, kind


def test_split() -> None:
    assert split('a,"b,""c""",d') == ["a", 'b,"c"', "d"]
