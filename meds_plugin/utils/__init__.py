"""Small things that everything else may use: files, locks, progress bars, random generators."""
