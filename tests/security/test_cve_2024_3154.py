"""Annotations that reach systemd: CVE-2024-3154.

Annotations often come from the user who starts a container. As a systemd property one could reboot the host,
start other units, or move the host's processes into the container's unit, to be killed with it.
"""

from __future__ import annotations

import pytest

from pyrunc.errors import Failure
from pyrunc.plan.cgroup_systemd import asked

HOSTILE = {
    "SuccessAction": "'reboot-force'",
    "FailureAction": "'poweroff'",
    "JobTimeoutAction": "'reboot'",
    "OnFailure": "['evil.service']",
    "OnSuccess": "['evil.service']",
    "Wants": "['evil.service']",
    "Conflicts": "['sshd.service']",
    "PIDs": "[uint32 1]",
    "PIDFDs": "[uint32 1]",
    "Slice": "'system.slice'",
    "ControlGroup": "'/system.slice/sshd.service'",
}


@pytest.mark.parametrize(("name", "value"), HOSTILE.items())
def test_a_property_that_acts_on_the_host_is_refused(name: str, value: str) -> None:
    with pytest.raises(Failure, match=name) as caught:
        asked({f"org.systemd.property.{name}": value})
    assert caught.value.pointer == f"/annotations/org.systemd.property.{name}"


def test_limits_of_the_unit_itself_are_not() -> None:
    found = asked({"org.systemd.property.TasksMax": "uint64 100", "other": "x"})
    assert found == [("TasksMax", "t", 100, 0)]
