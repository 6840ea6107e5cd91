"""What is at work, and the fair queues in which it waits."""
