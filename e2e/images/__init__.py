"""The container images of the tests and the demo, built without a Docker engine where there is none.

`archive_of(Image.BACKSTOP)` is the path of an archive in the cache that `Cluster.load_image` takes; it is built when what goes into it
has changed. Image references: `Image.BACKSTOP.reference` and so on.
"""

from __future__ import annotations

from e2e.images.image import Image, archive_of

__all__ = ["Image", "archive_of"]
