"""The services and values that the work shares, and the fair queues in which it waits."""
