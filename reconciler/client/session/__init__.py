"""The common part of verbs, status writers and discovery: sending, responses, retries."""
