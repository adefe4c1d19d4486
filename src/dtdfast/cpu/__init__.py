"""The CPU executor: plans run by the OpenMP kernels of csrc/."""
