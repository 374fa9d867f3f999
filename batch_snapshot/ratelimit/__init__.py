"""How fast and how often an account may call.

Exports `pace` (the pure state machine that finds the rate), `pace_handover` (a pace for other processes and
machines), `pacer` (hands out permits), `windows` (the log of calls, shared by the processes of a machine)
and `forecast`. It knows no AWS and no ledger.
"""

__all__ = ["forecast", "pace", "pace_handover", "pacer", "windows"]
