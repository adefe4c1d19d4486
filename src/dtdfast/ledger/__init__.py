"""The conservation ledger: where the relevance of every layer went."""
