"""List and watch: the stream of one kind into its store."""
