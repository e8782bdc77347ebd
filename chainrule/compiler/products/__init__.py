"""Matrix products and convolutions as LLVM text, generated for their shape."""
