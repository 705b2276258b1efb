"""Where the outputs of a detector's frozen part are cached."""
