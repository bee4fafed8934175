"""Figures and HTML pages about a run or a chain, from what its folder holds; and the ledger of claims."""
