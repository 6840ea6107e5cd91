"""What everything runs on: the runner of machines, and the seams to the rest of the world."""
