"""Events, audit records and metrics of deliveries."""
