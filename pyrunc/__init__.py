"""pyrunc: an OCI low-level container runtime.

This file stays empty of imports: it is on the way to every verb, and every import costs start-up time.
"""

__version__ = "0.1.0"
