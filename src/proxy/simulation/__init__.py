"""The whole program in a simulated world."""
