"""The oracle: every unit in NumPy float64, message by message; it defines the truth."""
