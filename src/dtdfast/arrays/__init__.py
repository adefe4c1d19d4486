"""Arrays in and out: NumPy, other libraries, other devices, lazy ones."""
