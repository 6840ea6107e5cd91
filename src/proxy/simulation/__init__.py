"""The simulation: the complete program in one process, in a world that a seed determines.

``node`` and the modules it uses know nothing of the program: they are written from the standard.
"""
