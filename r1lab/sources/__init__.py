"""Data of other people: sets of the Hub and of reasoning-gym, and the templates that ask them."""
