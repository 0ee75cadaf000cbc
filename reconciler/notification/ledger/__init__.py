"""The durable record of attempts in the status."""
