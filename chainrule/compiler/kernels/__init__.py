"""In which loops it is computed: kernels, their order, their memory."""
