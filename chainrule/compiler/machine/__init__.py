"""LLVM text to machine code: built, linked, kept on disk, called."""
