"""What is computed: arrays as expressions of arrays, simplified while they are built."""
