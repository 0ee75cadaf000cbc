"""The commands ``reconciler new`` and ``reconciler add``: files of a project, written from templates."""
