"""Functions and methods with PyTorch's signatures, made of rows of the table."""
