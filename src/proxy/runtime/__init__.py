"""The base of all other packages: the runner of machines, and the seams to the outer world."""
