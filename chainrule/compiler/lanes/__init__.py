"""Values in vector registers, and the elementary functions of them."""
