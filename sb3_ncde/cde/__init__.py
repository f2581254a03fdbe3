"""The equation dz = f(z, X) dX over a window, in plain PyTorch: path, interpolation, field, solvers. Internal.

What turns a window into the features of the heads belongs here. How a window is cut belongs to ``history``; what
RecurrentPPO asks of a policy to ``policies.py``.
"""
