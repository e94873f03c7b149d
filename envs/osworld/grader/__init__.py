"""OSWorld's own code in a process and a virtual environment of its own.

Runs with the grader's interpreter (``envs.osworld.grading`` starts it) and must import nothing of this project but its own modules.
"""
