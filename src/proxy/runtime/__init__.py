"""What everything runs on: the runner of machines, and the seams to network and threads."""
