"""Which fields of a scheduler belong to which policy; test_meaning has the messages for other policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyrunc.spec import scheduling

if TYPE_CHECKING:
    from pyrunc.spec.types import Scheduler


@pytest.mark.parametrize(
    ("given", "key", "least"),
    [
        ({}, "runtime", "1024 ns, this is 0"),
        ({"runtime": 1023, "deadline": 9999}, "runtime", "1024 ns, this is 1023"),
        ({"runtime": 2048}, "deadline", "the runtime, 2048 ns, this is 0"),
        ({"runtime": 2048, "deadline": 2047}, "deadline", "the runtime, 2048 ns, this is 2047"),
        (
            {"runtime": 1024, "deadline": 4096, "period": 9},
            "period",
            "the deadline, 4096 ns, this is 9",
        ),
        ({"runtime": 1024, "deadline": 1024}, "", ""),
        ({"runtime": 1024, "deadline": 1024, "period": 0}, "", ""),
        ({"runtime": 1024, "deadline": 2048, "period": 2048}, "", ""),
    ],
)
def test_a_deadline(given: dict[str, int], key: str, least: str) -> None:
    """The kernel only answers EINVAL; the most common mistake is a SCHED_DEADLINE without a runtime."""
    section: Scheduler = {"policy": "SCHED_DEADLINE", **given}  # type: ignore[typeddict-item]
    wanted = [(f"/process/scheduler/{key}", f"SCHED_DEADLINE needs a scheduler.{key} of at least {least}")]
    assert scheduling.check(section, "/process/scheduler") == (wanted if key else [])
