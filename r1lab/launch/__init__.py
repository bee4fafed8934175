"""Ways to start the laboratory: its commands, and scripts for several machines."""
