"""What travels between the parts: messages, REST shapes, names, states, limits and error codes.

Standard library only. Nothing here does I/O, and everything else may import it.
"""
