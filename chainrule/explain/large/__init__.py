"""Large networks: layer by layer in matrix form with statistics, and zoom into what matters."""
