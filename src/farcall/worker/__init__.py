"""What runs on a compute node: one task at a time, from its text to a result message.

Nothing here imports more than the standard library, dill, `farcall.serialize` and `farcall.wire`: a site's
nodes load it thousands of times over a network file system.
"""
