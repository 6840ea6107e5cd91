"""The reports to ITH, and the outbox that keeps them until they have arrived."""
