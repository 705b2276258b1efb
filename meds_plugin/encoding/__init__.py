"""From a data loader to frozen features by index, encoded once and cached."""
