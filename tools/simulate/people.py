"""Rigs for the people of a photo folder: photos, their landmarks, the face model."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.faces.photos import MESH_INDEX, Photo, read_manifest, split_of
from tools.simulate.ict import FaceModel, load
from tools.simulate.rig import Rig


@dataclass(frozen=True, slots=True)
class People:
    """The photos of one split with the teacher's landmarks, and the model to move them with."""

    model: FaceModel
    photos: tuple[Photo, ...]
    meshes: NDArray[np.float32]
    """(photos, 468, 3) px of the photo, z away from the camera."""

    @classmethod
    def read(cls, photos: Path, labels: Path, model: Path, split: str) -> "People":
        """Read those of `split` in whose photo the teacher found a face of at least 55 px IOD, nearly frontal."""
        with np.load(labels) as arrays:  # each look into the archive unpacks the whole array
            ids, found, all_meshes = arrays["ids"], arrays["found"], arrays["mesh"]
        row_of = {str(name): row for row, name in enumerate(ids)}
        kept, meshes = [], []
        for photo in read_manifest(photos):
            row = row_of.get(photo.id)
            if row is None or not found[row] or split_of(photo.subject) != split:
                continue
            mesh = all_meshes[row]
            across = mesh[263] - mesh[33]
            if np.hypot(across[0], across[1]) >= 55 and abs(across[2]) < 0.35 * abs(across[0]):
                kept.append(photo)
                meshes.append(mesh)
        return cls(load(model), tuple(kept), np.array(meshes, np.float32))

    def rig(self, number: int) -> Rig:
        """Fit the face model to photo `number`."""
        luma = cv2.imread(str(self.photos[number].path), cv2.IMREAD_GRAYSCALE)
        points = self.meshes[number][list(MESH_INDEX)]
        return Rig(self.model, luma, points[:, :2].copy(), -points[:, 2])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `People.read` needs."""
    for name, text in (
        ("photos", "folder of face photos with its MANIFEST.csv"),
        ("labels", "landmarks of tools.faces.teacher, npz"),
        ("model", "ICT face model of tools.simulate.convert_ict, npz"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=text)
