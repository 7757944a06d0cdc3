"""Side by side with runc and crun, in one run: python3 -m bench (or make bench)."""
