"""Discovery: which GPUs a server uses. Shell."""
