"""The services and values that dispatches and deliveries share, and their fair queues."""
