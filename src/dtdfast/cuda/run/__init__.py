"""Plans on a GPU: its memory, launches and graphs."""
