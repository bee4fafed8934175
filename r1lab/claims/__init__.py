"""The ledger of claims: what the paper says, the experiment that could refute it, what came out."""

from r1lab.claims.command import run_claims

__all__ = ["run_claims"]
