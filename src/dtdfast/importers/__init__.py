"""Networks from other formats, as layer lists."""
