"""The converter of ICT-FaceKit, on a made-up folder of tiny meshes in the same layout."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.errors import SourceError
from tools.simulate import convert_ict, ict
from tools.simulate.convert_ict import ALSO, IDENTITIES, INDICES, NEUTRAL, convert

EXPRESSIONS = ("browDown_L", "jawOpen")
RNG = np.random.default_rng(8)
HEAD = RNG.normal(0, 5, (70, 3)).round(4)
SHAPES = {
    name: RNG.normal(0, 0.3, HEAD.shape).round(4)
    for name in (*EXPRESSIONS, *ALSO, *(f"identity{number:03d}" for number in range(IDENTITIES)))
}


def write_obj(path: Path, vertices: np.ndarray, faces: str = "") -> None:
    lines = [
        "# a comment",
        "mtllib x.mtl",
        *(f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in vertices),
        "vt 0.5 0.5",
    ]
    path.write_text("\n".join(lines) + "\n" + faces)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "FaceXModel"
    place.mkdir()
    write_obj(place / NEUTRAL, HEAD, "usemtl skin\nf 1/1 2/1 3/1 4/1\nf 5//2 6//2 7//2\n")
    for name, shape in SHAPES.items():
        write_obj(place / f"{name}.obj", HEAD + shape)
    table = {"expressions": EXPRESSIONS, "idx_to_landmark_verts": list(range(1, 69))}
    (place / INDICES).write_text(json.dumps(table))
    return place


def test_what_is_written_is_what_the_simulator_reads(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.npz"
    monkeypatch.setattr(sys, "argv", ["convert_ict", str(folder), str(out)])
    convert_ict.main()
    assert "MIT" in capsys.readouterr().out
    model = ict.load(out)
    assert model.expression_names == (*EXPRESSIONS, *ALSO)
    assert np.allclose(model.neutral, HEAD)
    assert np.allclose(model.expressions[1], SHAPES["jawOpen"], atol=1e-3)
    assert np.allclose(model.identities[7], SHAPES["identity007"], atol=1e-3)
    assert model.landmark_vertices.max() <= 68


def test_polygons_become_triangles_and_unused_vertices_take_theirs_along(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert convert(folder)["triangles"].tolist() == [[0, 1, 2], [0, 2, 3], [4, 5, 6]]
    monkeypatch.setattr(convert_ict, "KEPT_VERTICES", 69)
    (folder / NEUTRAL).write_text((folder / NEUTRAL).read_text() + "f 68 69 70\n")
    arrays = convert(folder)
    assert arrays["triangles"].tolist() == [[0, 1, 2], [0, 2, 3], [4, 5, 6]]
    assert arrays["neutral"].shape == (69, 3)
    assert arrays["expression_deltas"].shape == (4, 69, 3)


def test_missing_files_are_named_all_at_once(folder: Path) -> None:
    (folder / "jawOpen.obj").unlink()
    (folder / "identity003.obj").unlink()
    with pytest.raises(SourceError, match=r"no jawOpen\.obj, identity003\.obj"):
        convert(folder)
    with pytest.raises(SourceError, match=r"elsewhere.*vertex_indices\.json: No such file.*FaceXModel"):
        convert(folder / "elsewhere")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (NEUTRAL, "v 1 2 3\nv 1 2\n", r"generic_neutral_mesh\.obj, line 2: expected three numbers.*'1 2'"),
        (NEUTRAL, "v 1 2 3\n" * 70, r"generic_neutral_mesh\.obj: no faces"),
        (NEUTRAL, "f 1 2 3\n", r"generic_neutral_mesh\.obj: no vertices"),
        ("jawOpen.obj", "v 1 2 x\n", r"jawOpen\.obj, line 1: expected three numbers"),
        ("jawOpen.obj", "v 1 2 3\n", r"jawOpen\.obj: 1 vertices, but generic_neutral_mesh\.obj has 70"),
        (INDICES, "{}", r"vertex_indices\.json: expected expressions and idx_to_landmark_verts"),
        (INDICES, '{"expressions": [], "idx_to_landmark_verts": [1]}', "has 1 entries, expected 68"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(SourceError, match=message):
        convert(folder)


@pytest.mark.parametrize("face", ["f 1 2 71", "f 1 2", "f 0 1 2", "f -1 -2 -3"])
def test_a_face_of_other_than_the_head_s_vertices_is_refused(folder: Path, face: str) -> None:
    (folder / NEUTRAL).write_text((folder / NEUTRAL).read_text() + face + "\n")
    with pytest.raises(SourceError, match=r"line \d+: expected three or more of the vertices 1 to 70"):
        convert(folder)


def test_landmarks_beyond_the_head_are_refused(folder: Path) -> None:
    table = {"expressions": EXPRESSIONS, "idx_to_landmark_verts": list(range(3, 71))}
    (folder / INDICES).write_text(json.dumps(table))
    with pytest.raises(SourceError, match="landmark vertices 3 to 70, but the head has 70"):
        convert(folder)
