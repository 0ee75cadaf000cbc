"""The commands that read files of the notification operator: its audit log, and its routing configuration."""
