"""The plan: what is computed for a network, in which steps, with which memory."""
