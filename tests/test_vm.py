"""The virtual machine's recipe fits together; the machine itself is run by `python -m tools.camera_vm` and its like."""

import ast
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from tools import camera_vm, pins_vm, service_vm
from tools.vm import image, machine
from tools.vm.pictures import BITS, SIZE, framed, load_photos, number_in, write_pictures

HERE = Path(image.__file__).parent
REPOSITORY = HERE.parents[1]


def test_what_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tools.builds.shutil.which", lambda command: None if command == "mmdebstrap" else command
    )
    monkeypatch.setattr("tools.builds.os.geteuid", lambda: 1000)
    assert image.missing() == [
        "building the disk needs root",
        "mmdebstrap is not installed (apt install mmdebstrap)",
    ]
    with pytest.raises(image.VmError, match="building the disk needs root; mmdebstrap is not installed"):
        image.image()


def test_the_machine_gets_all_that_the_package_asks_for() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = image.requirements()
    assert set(project["dependencies"]) <= set(wanted)
    pinned = {requirement.split("==")[0] for requirement in image.EXACT if "==" in requirement}
    on_a_pi = {re.split("[<>=~]", each)[0] for each in project["optional-dependencies"]["pi"]}
    assert on_a_pi <= pinned


def test_another_recipe_is_another_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    before = image.recipe_id()
    assert image.recipe_id() == before
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "hello"))
    assert image.recipe_id() != before


def test_every_file_of_the_recipe_decides_on_the_disk() -> None:
    assert sorted(image.inputs()) == sorted(path for path in (HERE / "recipe").iterdir() if path.is_file())


@pytest.mark.parametrize("path", sorted((HERE / "guest").glob("*.py")), ids=lambda path: path.name)
def test_the_guests_scripts_are_python_of_the_machine(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 13))


def test_the_commands_run_scripts_that_the_machine_has() -> None:
    asked = "".join(Path(command.__file__).read_text() for command in (camera_vm, pins_vm, service_vm))
    names = set(re.findall(r"/payload/guest/([a-z_]+)\.py", asked))
    names |= {f"pins_{part}" for part in pins_vm.PARTS}
    there = {path.stem for path in (HERE / "guest").glob("*.py")}
    assert names
    assert names <= there
    assert all((REPOSITORY / name).exists() for name in machine.SOURCES)


def test_each_picture_carries_its_number_and_the_photo(tmp_path: Path) -> None:
    photo = np.full((100, 50), 180, np.uint8)
    write_pictures(tmp_path, [photo], 3)
    shown = load_photos(tmp_path, 10)
    assert [number_in(picture) for picture in shown] == [0, 1, 2]
    assert all(picture.shape == SIZE[::-1] for picture in shown)
    assert int(shown[0][SIZE[1] // 2, SIZE[0] // 2]) == 180


def test_a_photo_of_any_shape_fits() -> None:
    for shape in ((600, 512), (31, 999), (480, 640)):
        assert framed(np.zeros(shape, np.uint8)).shape == SIZE[::-1]
    assert 2**BITS >= camera_vm.PICTURES


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path}: no .jpg or .png in it can be read"):
        load_photos(tmp_path, 5)
