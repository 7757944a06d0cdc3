"""pyrunc: an OCI low-level container runtime.

`import pyrunc` gives the Python interface (docs/python.md): bundles, plans, containers, volumes, and Failure.
Its functions call those of pyrunc/verbs, as the command line does.

This file imports nothing: every verb imports it, and every import costs start-up time. A name is imported
when it is first used (PEP 562).
"""

from __future__ import annotations

__all__ = (
    "Bundle",
    "Container",
    "Failure",
    "Finding",
    "Plan",
    "Problem",
    "Process",
    "Step",
    "Volume",
    "__version__",
    "containers",
    "doctor",
    "run",
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.api.bundle import Bundle
    from pyrunc.api.container import Container
    from pyrunc.api.process import Process
    from pyrunc.api.run import containers, run
    from pyrunc.api.volume import Volume
    from pyrunc.apply.doctor.finding import Finding
    from pyrunc.errors import Failure
    from pyrunc.plan.show import Plan
    from pyrunc.plan.steps import Step
    from pyrunc.spec.problems import Problem
    from pyrunc.verbs.doctor import doctor
    from pyrunc.versions import __version__

_HOMES = {
    "Bundle": "pyrunc.api.bundle",
    "Container": "pyrunc.api.container",
    "Failure": "pyrunc.errors",
    "Finding": "pyrunc.apply.doctor.finding",
    "Plan": "pyrunc.plan.show",
    "Problem": "pyrunc.spec.problems",
    "Process": "pyrunc.api.process",
    "Step": "pyrunc.plan.steps",
    "Volume": "pyrunc.api.volume",
    "__version__": "pyrunc.versions",
    "containers": "pyrunc.api.run",
    "doctor": "pyrunc.verbs.doctor",
    "run": "pyrunc.api.run",
}


if not TYPE_CHECKING:  # without this a type checker would accept any name

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'pyrunc' has no attribute {name!r}")
        found: object = getattr(__import__(home, fromlist=(name,)), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
