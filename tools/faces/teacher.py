"""Label face photos with the MediaPipe face mesh: `python -m tools.faces.teacher PHOTOS OUT.npz`.

Needs mediapipe 0.10.14 (Apache-2.0), at training time only. The labels go into the landmark net and the
detector; nothing of the teacher itself is shipped.
"""

import argparse
import sys
from pathlib import Path

import cv2
import mediapipe as mp
import numpy as np
from numpy.typing import NDArray

from tools.faces.photos import read_manifest

MESH_POINTS = 468
WORKING_SIDE = 512
"""Small photos are enlarged to this side (px): the teacher's own crop is 192 px."""


def look(teacher: "mp.solutions.face_mesh.FaceMesh", rgb: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Give the mesh of the most prominent face of one photo.

    The whole photo is tried first, then with a grey margin: a face that fills the photo is otherwise missed.

    Returns:
        (468, 3) float32, px of `rgb`, z in the unit of x; None where the teacher finds no face.
    """
    height, width = rgb.shape[:2]
    for margin in (0.0, 0.25, 0.5):
        pad_x, pad_y = round(width * margin), round(height * margin)
        padded = cv2.copyMakeBorder(
            rgb, pad_y, pad_y, pad_x, pad_x, cv2.BORDER_CONSTANT, value=(128, 128, 128)
        )
        zoom = max(1.0, WORKING_SIDE / max(padded.shape[:2]))
        seen = (
            cv2.resize(padded, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC) if zoom > 1 else padded
        )
        faces = teacher.process(seen).multi_face_landmarks
        if faces:
            points = np.array([(p.x, p.y, p.z) for p in faces[0].landmark], np.float32)
            points *= (padded.shape[1], padded.shape[0], padded.shape[1])
            return points - np.array((pad_x, pad_y, 0), np.float32)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="folder with MANIFEST.csv and the photos")
    parser.add_argument("out", type=Path, help="file to write: ids, subjects, found, mesh")
    options = parser.parse_args()
    photos = read_manifest(options.photos)
    found = np.zeros(len(photos), bool)
    mesh = np.zeros((len(photos), MESH_POINTS, 3), np.float32)
    with mp.solutions.face_mesh.FaceMesh(
        static_image_mode=True, refine_landmarks=False, max_num_faces=1, min_detection_confidence=0.5
    ) as teacher:
        for number, photo in enumerate(photos):
            pixels = cv2.imread(str(photo.path), cv2.IMREAD_COLOR)
            points = None if pixels is None else look(teacher, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
            if points is not None:
                found[number], mesh[number] = True, points
            if number % 250 == 249:
                print(f"{number + 1} of {len(photos)}, found {found.sum()}", file=sys.stderr)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        options.out,
        ids=np.array([photo.id for photo in photos]),
        subjects=np.array([photo.subject for photo in photos]),
        found=found,
        mesh=mesh,
    )
    missed = [photo.id for photo, seen in zip(photos, found, strict=True) if not seen]
    print(f"{found.sum()} of {len(photos)} faces found; missed: {' '.join(missed) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
