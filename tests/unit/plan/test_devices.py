"""Whether pyrunc makes the devices in /dev."""

from __future__ import annotations

import pytest

from pyrunc.errors import Failure
from pyrunc.plan import devices, steps
from tests.support.specs import small, with_linux
from tests.unit.plan.test_build import facts, plan


@pytest.mark.parametrize(
    ("mounts", "ours"),
    [
        ([], True),
        ([{"destination": "/dev", "type": "tmpfs", "options": ["nosuid"]}], True),
        ([{"destination": "/dev/", "type": "bind", "source": "/dev", "options": ["rbind"]}], False),
        ([{"destination": "dev", "type": "bind", "source": "/dev", "options": ["bind"]}], False),
        ([{"destination": "/device", "type": "bind", "source": "/dev", "options": ["bind"]}], True),
        (
            [
                {"destination": "/dev", "type": "tmpfs"},
                {"destination": "/dev", "source": "/dev", "options": ["bind"]},
            ],
            False,
        ),
    ],
)
def test_only_a_bind_takes_dev_from_us(mounts: list[dict[str, object]], *, ours: bool) -> None:
    assert devices.wanted(plan(small(mounts=mounts)).child) is ours


@pytest.mark.parametrize(
    "place", ["/dev", "/dev/", "//dev", "/./dev", "/dev/.", "/bin/../dev", "/../dev", "dev", "/b/rootfs/dev"]
)
@pytest.mark.parametrize("words", [["bind"], ["rbind"], ["", "rbind"], ["ro,rbind"], ["bind", "remount"]])
def test_however_a_bind_on_dev_is_spelled(place: str, words: list[str]) -> None:
    config = small(mounts=[{"destination": place, "type": "bind", "source": "/s", "options": words}])
    config["process"]["terminal"] = True
    made = plan(config).child
    assert not [step for step in made if isinstance(step, (steps.Device, steps.Symlink, steps.OwnNull))]
    assert [step.console for step in made if isinstance(step, steps.Terminal)] == [False]


def lowered(*found: dict[str, object], user_namespace: bool = False) -> list[steps.Step]:
    config = with_linux(devices=[*found])
    return devices.lower(config, facts(), [], user_namespace=user_namespace)  # type: ignore[arg-type]


NULL = {"type": "c", "major": 1, "minor": 3, "fileMode": 0o600}


@pytest.mark.parametrize("path", ["/dev/null", "//dev/null", "/dev/./null", "/x/../dev/null", "/dev/null/"])
def test_a_device_has_one_path_however_it_is_spelled(path: str) -> None:
    made = [step for step in lowered({"path": path, **NULL}) if isinstance(step, steps.Device)]
    assert [step.mode for step in made if step.path == "/dev/null"] == [0o600]
    assert len(made) == len(devices.DEFAULT)


@pytest.mark.parametrize("path", ["/dev/ptmx", "//dev/ptmx", "/dev/pts/../ptmx"])
@pytest.mark.parametrize("user_namespace", [True, False])
def test_ptmx_is_a_link_whoever_lists_it(path: str, *, user_namespace: bool) -> None:
    device = {"path": path, "type": "c", "major": 5, "minor": 2}
    made = lowered(device, user_namespace=user_namespace)
    assert not [step for step in made if isinstance(step, steps.Device) and step.path == "/dev/ptmx"]
    links = [step for step in made if isinstance(step, steps.Symlink)]
    assert [step.target for step in links if step.path == "/dev/ptmx"] == ["pts/ptmx"]


def test_what_is_mounted_on_ptmx_stays() -> None:
    mount = {"destination": "/dev//ptmx", "type": "bind", "source": "/dev/ptmx", "options": ["bind"]}
    made = plan(small(mounts=[mount])).child
    assert [type(step) for step in made if getattr(step, "path", "") == "/dev/ptmx"] == []


@pytest.mark.parametrize("path", ["/", "//", "/dev/.."])
def test_a_device_has_a_name(path: str) -> None:
    with pytest.raises(Failure, match="does not name a file") as caught:
        lowered({"path": path, **NULL})
    assert caught.value.pointer == "/linux/devices/0/path"


def test_a_fifo_can_be_made_anywhere() -> None:
    made = lowered({"path": "/dev/p", "type": "p"}, {"path": "/dev/b", "type": "b"}, user_namespace=True)
    bound = {step.path: step.bind for step in made if isinstance(step, steps.Device) and not step.default}
    assert bound == {"/dev/p": False, "/dev/b": True}


def test_a_mode_has_no_bits_but_a_mode_s() -> None:
    device = {"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 2**32 - 1}
    modes = [
        step.mode for step in lowered(device) if isinstance(step, steps.Device) and step.path == "/dev/x"
    ]
    assert modes == [0o7777]
