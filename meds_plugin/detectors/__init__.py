"""What the plugin asks of a detector, and all that it does to one."""
