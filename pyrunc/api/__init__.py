"""The Python interface: what `import pyrunc` gives.

There is no second code path (law 1): each call here calls one function of pyrunc/verbs, with a Command as the
command line makes it, and returns its result instead of printing it. This is a slow path: the program that
imports it runs already, so its own start does not matter.
"""
