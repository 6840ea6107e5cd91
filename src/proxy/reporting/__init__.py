"""What ITH is told: reports, and the outbox that keeps them until they have arrived."""
