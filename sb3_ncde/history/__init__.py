"""What is remembered: observations, their times, and the windows over them. Data only, no weights. Internal.

How a history is packed, appended to, cut and checked belongs here. What is computed of a window (a path, z) belongs
to ``cde``, and what makes an observation irregular or incomplete to ``envs``.
"""
