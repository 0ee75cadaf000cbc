"""What verbs, status writers and discovery share: sending, answers, retries."""
