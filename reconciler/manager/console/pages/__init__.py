"""The pages of the console: HTML made of the state."""
