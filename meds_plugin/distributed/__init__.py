"""Several processes at one job: who they are, what they share, and how they end."""
