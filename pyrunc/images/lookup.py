"""An image is found by its path and its tag, in whichever of the known forms it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyrunc.errors import Failure
from pyrunc.images import archive, image_files, layout
from pyrunc.images.image import FORMS

if TYPE_CHECKING:
    from pyrunc.images.image import Image
    from pyrunc.images.image_files import Files
    from pyrunc.images.platforms import Platform


def find(path: str, tag: str, platform: Platform) -> Image:
    """Return an image; its files stay open until it is closed.

    Args:
        path: path of a directory or a tar archive.
        tag: its name in there, "" for the only one.
        platform: which one of several.

    Raises:
        Failure: there is none, or it cannot be read.

    """
    opened: Files = image_files.Directory(path) if os.path.isdir(path) else image_files.Archive(path)
    try:
        if opened.find("oci-layout") is not None:
            return layout.find(opened, tag, platform)
        manifest = opened.json("manifest.json") if opened.find("manifest.json") else None
        if isinstance(manifest, dict):
            return layout.of_directory(opened, manifest, tag, platform)
        if manifest is not None:
            return archive.find(opened, manifest, tag, platform)
    except BaseException:
        opened.close()
        raise
    opened.close()
    raise Failure(f"{path} is no image: it has neither oci-layout nor manifest.json", hint=FORMS)
