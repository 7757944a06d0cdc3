"""Whose /dev it is."""

from __future__ import annotations

import pytest

from pyrunc.plan import devices, steps
from tests.support.specs import small, with_linux
from tests.unit.plan.test_build import facts


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
    assert devices.wanted(small(mounts=mounts)) is ours  # type: ignore[arg-type]


def test_a_fifo_can_be_made_anywhere() -> None:
    config = with_linux(devices=[{"path": "/dev/p", "type": "p"}, {"path": "/dev/b", "type": "b"}])
    made = devices.lower(config, facts(), user_namespace=True)  # type: ignore[arg-type]
    bound = {step.path: step.bind for step in made if isinstance(step, steps.Device) and not step.default}
    assert bound == {"/dev/p": False, "/dev/b": True}
