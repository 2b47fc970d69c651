"""What tells one content from another, in a few characters."""

import hashlib
from collections.abc import Iterable


def short_digest(chunks: Iterable[bytes]) -> str:
    """SHA-256 of the chunks, laid end to end, shortened to 16 hexadecimal digits."""
    content = hashlib.sha256()
    for chunk in chunks:
        content.update(chunk)
    return content.hexdigest()[:16]
