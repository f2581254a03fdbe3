"""What ``benchmarks/learning.py`` compares: tasks, agents, their settings, runs, and what their files say."""
