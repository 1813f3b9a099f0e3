from sandbox.extraction.document import SUPPORTED, ExtractionError
from sandbox.extraction.tool import extract

__all__ = ["SUPPORTED", "ExtractionError", "extract"]
