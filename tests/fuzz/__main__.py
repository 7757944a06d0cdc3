"""Try changed inputs for some time: python -m tests.fuzz [--seconds 60] [--seed N]. `make fuzz` calls it.

An input that breaks a rule is saved in tests/fuzz/corpus; from then on the tests try it each time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import time
import traceback
import zlib

from tests.fuzz import command, targets

FAST = 200  # inputs inside this process for each that the real command is given


def main() -> int:
    """Return 0 if nothing was found."""
    parser = argparse.ArgumentParser(description="Fuzz pyrunc.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--most", type=int, default=10, help="findings after which to stop")
    given = parser.parse_args()
    dice = random.Random(given.seed)
    start = {kind: targets.seeds(kind) for kind in targets.TARGETS}
    runtime = command.Command() if os.geteuid() == 0 else None
    print(f"seed {given.seed}{'' if runtime else ': without real containers, which take root'}")
    end = time.monotonic() + given.seconds
    counts = dict.fromkeys((*start, "command"), 0)
    found = 0
    while time.monotonic() < end and found < given.most:
        for _ in range(FAST):
            kind = dice.choice(list(start))
            counts[kind] += 1
            found += _tried(kind, targets.mutated(kind, dice, start[kind]), None)
        if runtime is not None:
            counts["command"] += 1
            found += _tried(*command.round_(runtime, dice, start), runtime)
    if runtime is not None:
        try:
            runtime.close()
        except AssertionError as left:
            found += 1
            print(f"left behind: {left}")
    print(f"tried {', '.join(f'{count} {kind}' for kind, count in counts.items())}; {found} findings")
    return 1 if found else 0


def _tried(kind: str, data: bytes, runtime: command.Command | None) -> bool:
    """Try one input; True if it breaks a rule, which is then kept and shown."""
    try:
        if runtime is not None:
            runtime.check(kind, data)
        else:
            check, _ = targets.TARGETS[kind]
            check(data, explain=zlib.crc32(data) % targets.EXPLAINED == 0)
    except Exception:  # noqa: BLE001 - whatever it is, it is what we look for
        name = hashlib.sha256(data).hexdigest()[:12]
        (targets.CORPUS / kind / name).write_bytes(data)
        traceback.print_exc(limit=-4)
        print(
            f"kept: tests/fuzz/corpus/{kind}/{name}{' (by the command)' if runtime else ''}", file=sys.stderr
        )
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
