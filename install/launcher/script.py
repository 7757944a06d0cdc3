#!@PYTHON@ -IS
"""The installed pyrunc command: no site, no user directories, no environment: sys.path is decided here."""

import sys

sys.path.insert(0, "@SITE@")

from pyrunc.__main__ import main

main()
