"""Convert the public ICT-FaceKit (github.com/ICT-VGL/ICT-FaceKit, MIT) into the one file that the simulator reads.

    python -m tools.simulate.convert_ict ICT-FaceKit/FaceXModel ict_expressions.npz

The repository holds one OBJ mesh for the neutral head, one per expression shape and one per identity mode, all
with the same vertices. Written are the arrays that `tools.simulate.ict.load` needs: shapes as differences to the
neutral head, in half precision (off by less than 3 micrometres up to a centimetre), polygons split into triangles.
Vertices from 24591 on (tear fluid, eye blending, lashes) are left out.
"""

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError

NEUTRAL = "generic_neutral_mesh.obj"
INDICES = "vertex_indices.json"
ALSO = ("cheekRaiser_L", "cheekRaiser_R")
"""Shapes that the folder holds and its list of expressions leaves out; they are AU6."""
IDENTITIES = 20
"""Modes taken of the hundred, the strongest first: the rest is below what 56 landmarks of a photo tell."""
KEPT_VERTICES = 24591


def convert(folder: Path) -> dict[str, NDArray[np.generic]]:
    """Read a FaceXModel folder.

    Returns:
        The arrays by name: neutral (V, 3) float32 cm, triangles (T, 3) uint16, expression_names (55,) text,
        expression_deltas (55, V, 3) and identity_deltas (20, V, 3) float16 cm, landmarks68 (68,) int32.

    Raises:
        SourceError: a file is missing, is not what it should be, or does not belong to the neutral head; the
            message names it.
    """
    listed, landmarks = _indices(folder / INDICES)
    names = [*listed, *ALSO]
    modes = [f"identity{number:03d}" for number in range(IDENTITIES)]
    if missing := [
        name for name in (NEUTRAL, *(f"{n}.obj" for n in names + modes)) if not (folder / name).is_file()
    ]:
        raise SourceError(f"{folder}: no {', '.join(missing[:5])}{' and others' if len(missing) > 5 else ''}")
    neutral = read_vertices(folder / NEUTRAL)
    if not 0 <= landmarks.min() <= landmarks.max() < min(len(neutral), KEPT_VERTICES):
        raise SourceError(
            f"{folder / INDICES}: landmark vertices {landmarks.min()} to {landmarks.max()}, but the head has "
            f"{min(len(neutral), KEPT_VERTICES)}"
        )
    triangles = read_triangles(folder / NEUTRAL, len(neutral))
    return {
        "neutral": neutral[:KEPT_VERTICES].astype(np.float32),
        "triangles": triangles[(triangles < KEPT_VERTICES).all(axis=1)].astype(np.uint16),
        "expression_names": np.array(names),
        "expression_deltas": np.stack([_delta(folder / f"{name}.obj", neutral) for name in names]),
        "identity_deltas": np.stack([_delta(folder / f"{mode}.obj", neutral) for mode in modes]),
        "landmarks68": landmarks,
    }


def read_vertices(path: Path) -> NDArray[np.float64]:
    """Give the vertices (V, 3) of an OBJ file.

    Raises:
        SourceError: a `v` line without three numbers, or none at all; the message names file and line.
    """
    rows = []
    for number, words in _lines(path, "v"):
        try:
            rows.append([float(word) for word in words[:3]])
        except ValueError:
            rows.append([])
        if len(rows[-1]) != 3:
            raise SourceError(
                f"{path}, line {number}: expected three numbers after v, found {' '.join(words)!r}"
            )
    if not rows:
        raise SourceError(f"{path}: no vertices (lines that begin with v)")
    return np.array(rows)


def read_triangles(path: Path, vertices: int) -> NDArray[np.int32]:
    """Give the faces of an OBJ file as triangles (T, 3) of vertex numbers from 0; polygons become fans.

    Raises:
        SourceError: a face with under three corners or with one that is not a vertex, naming file and line; or
            no face at all.
    """
    triangles = []
    for number, words in _lines(path, "f"):
        corners = [word.partition("/")[0] for word in words]  # vertex/texture/normal
        if len(corners) < 3 or not all(c.isdecimal() and 1 <= int(c) <= vertices for c in corners):
            raise SourceError(
                f"{path}, line {number}: expected three or more of the vertices 1 to {vertices}, "
                f"found {' '.join(words)!r}"
            )
        first, *others = (int(corner) - 1 for corner in corners)
        triangles += [(first, b, c) for b, c in pairwise(others)]
    if not triangles:
        raise SourceError(f"{path}: no faces (lines that begin with f)")
    return np.array(triangles, np.int32)


def _lines(path: Path, keyword: str) -> list[tuple[int, list[str]]]:
    """Give number (from 1) and words of the lines that begin with a keyword."""
    text = path.read_text(encoding="utf-8", errors="replace")
    split = ((number, line.split()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, words[1:]) for number, words in split if words and words[0] == keyword]


def _delta(path: Path, neutral: NDArray[np.float64]) -> NDArray[np.float16]:
    """Give what a shape adds to the neutral head, (V, 3) cm."""
    vertices = read_vertices(path)
    if len(vertices) != len(neutral):
        raise SourceError(f"{path}: {len(vertices)} vertices, but {NEUTRAL} has {len(neutral)}")
    return (vertices - neutral)[:KEPT_VERTICES].astype(np.float16)


def _indices(path: Path) -> tuple[list[str], NDArray[np.int32]]:
    """Give the names of the expressions and the vertices of the 68 Multi-PIE landmarks."""
    try:
        table = json.loads(path.read_text())
        names, landmarks = [str(name) for name in table["expressions"]], table["idx_to_landmark_verts"]
        vertices = np.array(landmarks, np.int32)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}; give the FaceXModel folder of ICT-FaceKit") from error
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path}: expected expressions and idx_to_landmark_verts ({error!r})") from error
    if vertices.shape != (68,):
        raise SourceError(f"{path}: idx_to_landmark_verts has {len(landmarks)} entries, expected 68")
    return names, vertices


def main() -> None:
    """Convert and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="FaceXModel of a checkout of ICT-FaceKit")
    parser.add_argument("out", type=Path, help="the npz to write")
    options = parser.parse_args()
    try:
        arrays = convert(options.folder)
    except SourceError as error:
        sys.exit(f"convert_ict: {error}")
    np.savez_compressed(options.out, **arrays)
    print(
        f"{options.out}: {len(arrays['neutral'])} vertices, {len(arrays['triangles'])} triangles, "
        f"{len(arrays['expression_names'])} expressions, {IDENTITIES} identities. "
        "The data stays under the MIT licence of ICT-FaceKit: keep its LICENSE with every copy."
    )


if __name__ == "__main__":
    main()
