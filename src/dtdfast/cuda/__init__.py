"""The CUDA backend; README.md beside this says how its files fit together."""
