"""The Python interface: what `import pyrunc` gives.

No second code path (law 1): every call here is one function of pyrunc/verbs, given a Command as the command
line gives it one, and returns what that function returns instead of printing it. Slow path: whoever imports
this has an interpreter running already.
"""
