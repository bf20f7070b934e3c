"""The proof: TF-Slim's end points and a port's, on the same input, compared one by one."""

from converters.parity.compare import Comparison, Row
from converters.parity.report import Report
from converters.parity.tracing import trace
from converters.parity.verification import verify

__all__ = ["Comparison", "Report", "Row", "trace", "verify"]
