"""Acting: one step of N environments in NumPy, without PyTorch and without Stable-Baselines3.

A step is about a hundred operations on a handful of numbers each, where an operation of PyTorch costs several times one
of NumPy. What is computed is what :mod:`sb3_ncde.cde` computes, which learns; tests hold the two together.
"""
