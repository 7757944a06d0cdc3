"""Any mounts array: a plan or an explained refusal, and options that mean what their last word says."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from pyrunc.errors import Failure
from pyrunc.plan import build, mount_options, steps
from pyrunc.plan.facts import Facts, Request
from pyrunc.plan.mount_options import Options, parse
from pyrunc.plan.mount_steps import Mount
from pyrunc.spec import accept, meaning
from pyrunc.spec.problems import Report
from tests.support.cgroup_hosts import hybrid, v2
from tests.support.programs import FACTS
from tests.support.specs import small

MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TABLE = mount_options.OPTIONS

# Words no table knows: for the file system on a new one, wrong on a bind.
DATA = ("size=64k", "mode=755", "rslaev", "", "=", "x=1,y", "subpath=a/b", "userxattr", "é")
LAYERS = (
    "lowerdir=/l",
    "lowerdir=a:b::c",
    "lowerdir=",
    "lowerdir+=/l",
    "upperdir=/u",
    "workdir=w",
    "datadir+=d",
)
MAPPINGS = (
    "idmap=uids=0-1-2;gids=0-1-2",
    "ridmap=uids=@0-0-1#5-5-5;gids=0-0-1",
    "idmap=uids=0-1;gids=",
    "ridmap=",
)
WORDS = st.sampled_from([*TABLE, *DATA, *LAYERS, *MAPPINGS])
PLACES = (
    "/",
    "",
    "//",
    "/.",
    "..",
    "/a",
    "/a/",
    "a/b",
    "/a/../b",
    "/b/rootfs",
    "/b/rootfs/x",
    "/dev",
    "/dev/pts",
)
SOURCES = ("", "/", "/s", "s", "./rootfs/a", "/b/rootfs", "/b/rootfs/../x", "tmpfs", "/sys", "\n")
TYPES = (
    "",
    "bind",
    "none",
    "tmpfs",
    "proc",
    "sysfs",
    "devpts",
    "mqueue",
    "cgroup",
    "cgroup2",
    "overlay",
    "ext4",
    "-",
)
MAPS = st.lists(
    st.fixed_dictionaries({key: st.integers(0, 70000) for key in ("containerID", "hostID", "size")}),
    max_size=2,
)
RANGE = [{"containerID": 0, "hostID": 100000, "size": 65536}]
ENTRY = st.fixed_dictionaries(
    {"destination": st.sampled_from([*PLACES, "/proc", "/sys", "/sys/fs/cgroup"]) | st.text(max_size=5)},
    optional={
        "source": st.sampled_from(SOURCES) | st.text(max_size=5),
        "type": st.sampled_from(TYPES) | st.text(max_size=5),
        "options": st.lists(WORDS | st.text(max_size=5), max_size=7),
        "uidMappings": MAPS,
        "gidMappings": MAPS,
    },
)
# Nearly right ones, because random words rarely are.
BIND = st.fixed_dictionaries(
    {
        "destination": st.sampled_from(["/a", "/a/b", "c", "/b/rootfs/x", "/dev"]),
        "source": st.sampled_from(["/s", "s", "/b/rootfs/y"]),
        "options": st.lists(st.sampled_from([*TABLE, "subpath=x", *MAPPINGS[:2]]), max_size=6).map(
            lambda words: ["rbind", *words]
        ),
    }
)
NEW = st.fixed_dictionaries(
    {
        "destination": st.sampled_from(["/a", "/a/b", "/dev", "/sys"]),
        "type": st.sampled_from(["tmpfs", "proc", "sysfs", "mqueue", "cgroup", "overlay"]),
        "options": st.lists(st.sampled_from([*TABLE, *DATA[:2]]), max_size=6).map(
            lambda words: [*words, LAYERS[0]]
        ),
    }
)
ARRAY = st.lists(BIND | NEW, max_size=4) | st.lists(ENTRY | BIND | NEW, max_size=6)
NAMESPACES = st.sets(
    st.sampled_from(["pid", "network", "ipc", "uts", "user", "cgroup", "time"]), max_size=7
).map(lambda kinds: [{"type": kind} for kind in sorted(kinds | {"mount"})])
HOSTS = st.builds(
    Facts,
    kernel=st.sampled_from([(6, 18), (6, 1), (5, 12), (5, 10)]),
    statmount=st.booleans(),
    euid=st.sampled_from([0, 0, 0, 1000]),
    in_user_namespace=st.booleans(),
    kcore=st.booleans(),
    capabilities=st.just((1 << 41) - 1),
    cgroup=st.sampled_from([v2(), hybrid(), v2(version=0, mounts={}, own={})]),
)
BEST = FACTS.but(kcore=True)
REQUEST = Request(id="c1", bundle="/b")


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a configuration whose mounts array and namespaces are random; the form of all is right."""
    config = small(mounts=draw(ARRAY))
    config["linux"] = {"namespaces": draw(NAMESPACES)}
    for key, value in (
        ("rootfsPropagation", draw(st.sampled_from(["", "rshared", "private", "rslave", "unbindable"]))),
        ("mountLabel", draw(st.sampled_from(["", "u:r:t:s0"]))),
    ):
        if value:
            config["linux"][key] = value
    if {"type": "user"} in config["linux"]["namespaces"] and draw(st.booleans()):
        config["linux"].update(uidMappings=RANGE, gidMappings=RANGE)
    assume(accept.accept(config))
    return config


def found_at(document: object, pointer: str) -> bool:
    """Tell whether a JSON pointer leads to something."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, list) and name.isdigit() and int(name) < len(document):
            document = document[int(name)]
        elif isinstance(document, dict) and name in document:
            document = document[name]
        else:
            return False
    return True


def planned(config: dict[str, Any], facts: Facts) -> steps.Plan | Failure:
    """Return the plan, or the refusal; anything else that is raised fails the test."""
    try:
        plan = build.build(config, facts, REQUEST)  # type: ignore[arg-type]
    except Failure as refusal:
        event("refused")
        return refusal
    event("planned")
    return plan


def mount_steps(plan: steps.Plan) -> list[Mount]:
    return [step for step in plan.child if isinstance(step, Mount)]


@MANY
@given(config=configs(), facts=HOSTS)
def test_a_plan_or_an_explained_refusal(config: dict[str, Any], facts: Facts) -> None:
    before = json.dumps(config)
    plan = planned(config, facts)
    if isinstance(plan, Failure):
        assert plan.message
        assert "\n" not in plan.text()
        # What the host lacks is the fault of no entry; any other failure names an entry of the file.
        assert found_at(config, plan.pointer)
        assert plan.pointer or plan.hint
    else:
        for step in mount_steps(plan):
            assert found_at(config, step.pointer)
            assert step.pointer == f"/mounts/{step.index}"
    assert json.dumps(config) == before, "a planner that writes into the configuration plans once"


@MANY
@given(config=configs(), facts=HOSTS)
def test_a_plan_is_what_its_input_makes_it(config: dict[str, Any], facts: Facts) -> None:
    first, second = planned(config, facts), planned(config, facts)
    if isinstance(first, Failure):
        assert isinstance(second, Failure)
        assert second.facts() == first.facts()
    else:
        assert second == first


@MANY
@given(config=configs())
def test_validate_and_plan_agree(config: dict[str, Any]) -> None:
    """On a host that can do everything, what is refused is what validate finds wrong, with its place."""
    report = Report(json.dumps(config).encode(), "config")
    if meaning.check(config):  # type: ignore[arg-type]
        assert report.problems
        return
    plan = planned(config, BEST)
    if isinstance(plan, Failure):
        assert plan.pointer in [problem.pointer for problem in report.problems]
    else:
        assert report.problems == []


# -- options -------------------------------------------------------------------------------------------------

PLAIN = (mount_options.SET, mount_options.CLEAR)
DEEP = (mount_options.RSET, mount_options.RCLEAR)
TIMES = (mount_options.ATIME, mount_options.NO_ATIME, mount_options.RATIME)
PAIRS = ({"sync", "async"}, {"lazytime", "nolazytime"}, {"tmpcopyup", "notmpcopyup"})


def group(word: str) -> object:
    """Return what a word is about: words about different things do not touch each other."""
    kind, what = TABLE.get(word, (-1, ""))
    if kind in (*PLAIN, *DEEP):
        return what
    if kind in TIMES:
        return "atime"
    if kind in (mount_options.PROPAGATION, mount_options.RPROPAGATION):
        return "propagation"
    if kind == mount_options.IDMAP or word.startswith(("idmap=", "ridmap=")):
        return "idmap"
    if kind == -1:
        return "data"
    if kind == mount_options.NOTHING:
        return word
    return next(("/".join(sorted(pair)) for pair in PAIRS if what in pair), what)


def overrules(later: str, earlier: str) -> bool:
    """Tell whether a word leaves nothing of an earlier one of its group."""
    if group(later) != group(earlier) or group(later) == "data":
        return False
    (kind, what), (old, older) = TABLE.get(later, (-1, "")), TABLE.get(earlier, (-1, ""))
    if kind in PLAIN or kind == mount_options.ATIME:
        return old in PLAIN or old in (mount_options.ATIME, mount_options.NO_ATIME)
    if kind == mount_options.NO_ATIME:
        return old == kind and what == older
    if kind == mount_options.RATIME:
        return old == kind
    if kind in DEEP:
        return old in DEEP
    if kind in (mount_options.PROPAGATION, mount_options.RPROPAGATION):
        both = (older, what) == (mount_options.SLAVE, mount_options.SHARED)
        return not both and kind >= old  # the wide one takes the narrow one's place, not the other way round
    return kind != mount_options.BIND or older == "bind"


def meaning_of(options: Options) -> dict[str, Any]:
    """Return what options say, with the order of words about different things left out."""
    said = {name: getattr(options, name) for name in Options._fields}
    said["superblock"], said["ext"] = sorted(options.superblock), sorted(options.ext)
    return said


SOME = st.lists(WORDS, max_size=6)
OVERRULED = [
    (word, last) for word in [*TABLE, *MAPPINGS] for last in [*TABLE, *MAPPINGS] if overrules(last, word)
]


@MANY
@given(before=SOME, pair=st.sampled_from(OVERRULED), between=SOME, after=SOME)
def test_of_conflicting_words_the_last_one_wins(
    before: list[str], pair: tuple[str, str], between: list[str], after: list[str]
) -> None:
    earlier, later = pair
    # A third word of the group may depend on the earlier one: slave, and then shared.
    before, between = ([word for word in part if group(word) != group(later)] for part in (before, between))
    whole = parse([*before, earlier, *between, later, *after])
    assert meaning_of(whole) == meaning_of(parse([*before, *between, later, *after]))


@MANY
@given(before=SOME, one=WORDS, other=WORDS, after=SOME)
def test_words_that_do_not_conflict_commute(
    before: list[str], one: str, other: str, after: list[str]
) -> None:
    assume(group(one) != group(other))
    whole = parse([*before, one, other, *after])
    assert meaning_of(whole) == meaning_of(parse([*before, other, one, *after]))


@MANY
@given(words=st.lists(WORDS | st.text(max_size=6), max_size=12))
def test_set_and_clear_never_overlap(words: list[str]) -> None:
    got = parse(words)
    assert not got.attr_set & got.attr_clear
    assert not got.rattr_set & got.rattr_clear
    times = mount_options.ATIME_MASK
    for put, clear in (got.own()[:2], got.deep()):
        # An access time is set by clearing the whole field first: that is the kernel's interface.
        assert not put & clear & ~times
        assert clear & times in (0, times)
        assert not put & times or clear & times == times
        assert put & times in (0, mount_options.NOATIME, mount_options.STRICTATIME)
    put, clear, implied = got.own()
    assert not implied & (put | clear)
    asked = mount_options.attributes(got)
    mask, value = asked.must_mask, asked.must_be
    assert not value & ~mask


@MANY
@given(words=st.lists(WORDS | st.text(max_size=6), max_size=12))
def test_data_stays_in_order(words: list[str]) -> None:
    known = (*TABLE, "idmap", "ridmap")
    each = mount_options.separate(words)
    assert parse(words).data == tuple(word for word in each if word.partition("=")[0] not in known)
    assert "" not in each


@MANY
@given(words=st.lists(st.sampled_from([*TABLE]), max_size=10))
def test_what_must_hold_is_what_the_last_word_about_it_says(words: list[str]) -> None:
    """Told bit by bit, without masks: the reading a person would do."""
    got = parse(words)
    asked = mount_options.attributes(got)
    mask, value = asked.must_mask, asked.must_be
    for bit in (*(1 << at for at in range(4)), mount_options.NODIRATIME, mount_options.NOSYMFOLLOW):
        about = [TABLE[word][0] for word in words if group(word) == bit]
        if about:
            assert mask & bit
            # What is restricted everywhere stays so, whatever a plain word after it says.
            deep = [kind for kind in about if kind in DEEP]
            restricted = deep[-1:] == [mount_options.RSET]
            assert bool(value & bit) is (
                about[-1] in (mount_options.SET, mount_options.RSET) or (restricted and about[-1] in PLAIN)
            )
        else:
            assert not mask & bit
