#!@PYTHON@ -IS
"""The installed pyrunc command: no site, no user directories, no environment: sys.path is decided here."""

import sys

sys.path.insert(0, "@SITE@")

try:
    from pyrunc.__main__ import main
except Exception as exc:  # noqa: BLE001 - before there is anybody who says it better
    sys.stderr.write(" ".join(f"pyrunc: {type(exc).__name__}: {exc}".split()) + "\n")
    sys.exit(1)

main()
