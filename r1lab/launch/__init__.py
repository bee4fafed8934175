"""Ways to start the laboratory: the installation here; scripts for several machines later."""
